"""A scratch folder that outlives the process if that is killed, for the next attempt to go on in."""

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def kept_folder(scratch: Path, prefix: str, made_from: str) -> Iterator[Path]:
    """Yield a folder beside `scratch`, and remove it unless this process is killed.

    It is found again by `prefix` and `made_from`; one of the same prefix that was made from something else is removed.
    While another process uses it, this one works in `scratch`.
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
    """Yield whether no other process uses the folder; inside, none does. The lock goes with its process."""
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        yield True
