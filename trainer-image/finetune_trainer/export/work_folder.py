"""A scratch folder that survives if the process is killed, so that the next attempt can continue in it."""

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def kept_folder(scratch: Path, prefix: str, made_from: str) -> Iterator[Path]:
    """Yield a folder beside `scratch`, and remove it unless this process is killed.

    The next attempt finds it by `prefix` and `made_from`. A folder with the same prefix and another `made_from` is
    removed. While another process uses the folder, this one works in `scratch`.
    """
    folder = scratch.parent / f"{prefix}-{made_from}"
    for old in scratch.parent.glob(f"{prefix}-*"):
        if old != folder:
            with _locked(old) as free:
                if free:
                    shutil.rmtree(old, ignore_errors=True)
    folder.mkdir(exist_ok=True)
    with _locked(folder) as free:
        try:
            yield folder if free else scratch
        finally:
            if free:
                shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Yield whether this process has the folder for itself. The lock ends with the process."""
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        yield True
