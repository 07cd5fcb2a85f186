"""Starts the process that talks to a hub, and sends it requests."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from finetune_api.plan import HubSource
from finetune_trainer.errors import AccessDeniedError, NoAnswerError, StageError, UnavailableError
from finetune_trainer.network import patience
from finetune_trainer.runtime.environment import FIXED
from finetune_trainer.storage.store import Progress

DEFAULT_ENDPOINT = "the Hugging Face hub"
_POLL_SECONDS = 1.0
# Unavailable: the hub may answer later. Refused: it did answer.
Fault = Literal["missing", "denied", "unavailable", "refused"]


class HubClient:
    """One repository of a hub; `explain` returns the error for a fault and the hub's own name of it."""

    def __init__(
        self, source: HubSource, kind: Literal["model", "dataset"], explain: Callable[[Fault, str], StageError]
    ) -> None:
        """Start the process.

        Raises:
            AccessDeniedError: the Secret lacks the token.
        """
        if source.token_file and not Path(source.token_file).is_file():
            file = Path(source.token_file)
            raise AccessDeniedError(f'Secret "{file.parent.name}" has no key {file.name}; add it')
        self._common = {"repository": source.repository, "kind": kind, "tokenFile": source.token_file}
        self._explain = explain
        self._process = subprocess.Popen(
            [sys.executable, "-m", "finetune_trainer.sources.hub_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=_online(source.endpoint),
        )

    def ask(self, action: str, moved: Callable[[], int] = lambda: 0, **arguments: Any) -> dict[str, Any]:
        """Return the answer to one request; see `patience.patiently`.

        Raises:
            StageError: what `explain` returned, or the process ended.
        """
        return patience.patiently(lambda: self._ask(action, arguments), moved)

    def _ask(self, action: str, arguments: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(self._common | {"action": action} | arguments) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise UnavailableError("the process that downloads from the hub ended; see the log for the reason")
        found: dict[str, Any] = json.loads(line)
        if "error" in found:
            explained = self._explain(found["error"], found["detail"])
            if found["error"] == "unavailable":
                raise NoAnswerError(explained.message, unknown_name=found.get("unknownName", False))
            raise explained
        return found

    def download(self, commit: str, paths: Sequence[str], folder: Path, progress: Progress) -> None:
        """Download files of one commit into `folder`; the progress is the size on the disk."""
        folder.mkdir(parents=True, exist_ok=True)
        done = threading.Event()

        def arrived() -> int:
            return sum(_size(p) for p in folder.rglob("*"))

        def watch() -> None:
            seen = 0
            while not done.wait(_POLL_SECONDS):
                now = arrived()
                progress(max(0, now - seen))
                seen = max(seen, now)

        watcher = threading.Thread(target=watch, name="download", daemon=True)
        watcher.start()
        try:
            self.ask("download", arrived, commit=commit, paths=list(paths), folder=str(folder))
        finally:
            done.set()
            watcher.join()

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()


def _online(endpoint: str | None) -> dict[str, str]:
    offline = {name for name in FIXED if name.endswith("_OFFLINE")}
    variables = {name: value for name, value in os.environ.items() if name not in offline}
    variables["PYTHONPATH"] = os.pathsep.join(sys.path)  # it must find this package
    if endpoint:
        variables["HF_ENDPOINT"] = endpoint
    return variables


def _size(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else 0
    except OSError:  # renamed in the meantime
        return 0
