"""A model on a hub, reached through the one online process."""

import base64
import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from finetune_api.plan import HubSource
from finetune_trainer.environment import FIXED
from finetune_trainer.errors import AccessDeniedError, ModelError, StageError, UnavailableError
from finetune_trainer.model_files import Listing, check_weights_present, is_needed
from finetune_trainer.prepared import ModelFile
from finetune_trainer.store import Progress

_DEFAULT_ENDPOINT = "the Hugging Face hub"
_POLL_SECONDS = 1.0


class HubModel:
    """See `model_files.ModelFiles`. The revision is a commit; a file's identity is its blob's id or sha256."""

    def __init__(self, source: HubSource, commit: str | None = None) -> None:
        self._source = source
        self._commit = commit
        if source.token_file and not Path(source.token_file).is_file():
            file = Path(source.token_file)
            raise AccessDeniedError(f'Secret "{file.parent.name}" has no key {file.name}; add it')
        self._process = subprocess.Popen(
            [sys.executable, "-m", "finetune_trainer.hub_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=_online(source.endpoint),
        )

    @property
    def reference(self) -> str:
        """org/name."""
        return self._source.repository

    def listing(self) -> Listing:
        """Resolve the revision to a commit and list its files."""
        found = self._ask("resolve", revision=self._commit or self._source.revision)
        self._commit = str(found["commit"])
        files = [ModelFile.model_validate(f) for f in found["files"]]
        check_weights_present(self.reference, [f.path for f in files])
        return Listing(self._commit, tuple(f for f in files if is_needed(f.path)))

    def read_ranges(self, file: ModelFile, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Ask for each range."""
        found = self._ask("ranges", commit=self._commit, path=file.path, ranges=list(ranges))
        return [base64.b64decode(r) for r in found["ranges"]]

    def fetch(self, files: Sequence[ModelFile], folder: Path, progress: Progress) -> Path:
        """Download into `folder`; what is on the disk tells how far it is."""
        folder.mkdir(parents=True, exist_ok=True)
        done = threading.Event()

        def watch() -> None:
            seen = 0
            while not done.wait(_POLL_SECONDS):
                now = sum(_size(p) for p in folder.rglob("*"))
                progress(max(0, now - seen))
                seen = max(seen, now)

        watcher = threading.Thread(target=watch, name="download", daemon=True)
        watcher.start()
        try:
            self._ask("download", commit=self._commit, paths=[f.path for f in files], folder=str(folder))
        finally:
            done.set()
            watcher.join()
        return folder

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()

    def _ask(self, action: str, **arguments: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        request = {
            "action": action,
            "repository": self._source.repository,
            "tokenFile": self._source.token_file,
            **arguments,
        }
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise UnavailableError("the process that downloads from the hub ended; the log says why")
        found: dict[str, Any] = json.loads(line)
        if "error" in found:
            raise self._error(found["error"], found["detail"])
        return found

    def _error(self, kind: str, detail: str) -> StageError:
        where = f"{self._source.repository} (revision {self._source.revision}) at {self._server}"
        if kind == "missing":
            return ModelError(
                f"{where} was not found ({detail}); check model.huggingFace.repository and revision, "
                "and set tokenSecretRef if the repository is private"
            )
        if kind == "denied":
            return AccessDeniedError(
                f"{where} may not be read ({detail}); accept its licence on the hub and "
                + (
                    f'check the token in Secret "{Path(self._source.token_file).parent.name}"'
                    if self._source.token_file
                    else "set model.huggingFace.tokenSecretRef"
                )
            )
        return UnavailableError(
            f"{self._server} does not answer ({detail}); check the network, or put the model on S3 or a volume"
        )

    @property
    def _server(self) -> str:
        return self._source.endpoint or _DEFAULT_ENDPOINT


def _online(endpoint: str | None) -> dict[str, str]:
    offline = {name for name in FIXED if name.endswith("_OFFLINE")}
    variables = {name: value for name, value in os.environ.items() if name not in offline}
    variables["PYTHONPATH"] = os.pathsep.join(sys.path)  # it must find this very package
    if endpoint:
        variables["HF_ENDPOINT"] = endpoint
    return variables


def _size(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else 0
    except OSError:  # renamed in the meantime
        return 0
