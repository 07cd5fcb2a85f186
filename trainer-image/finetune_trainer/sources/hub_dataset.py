"""One file of a dataset repository on a hub."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from finetune_api.plan import HubFile
from finetune_trainer.errors import AccessDeniedError, DatasetError, StageError, UnavailableError
from finetune_trainer.sources.hub_client import DEFAULT_ENDPOINT, Fault, HubClient
from finetune_trainer.storage.store import Progress, checked_key

# The hub's own name for what is missing, and the field to correct.
_MISSING = {
    "RepositoryNotFoundError": "repository",
    "RevisionNotFoundError": "revision",
    "RemoteEntryNotFoundError": "path",
}
log = logging.getLogger(__name__)


def download(file: HubFile, name: str, field: str, folder: Path, room: Callable[[int], Progress]) -> Path:
    """Download the file at the commit that its revision points to now, and return its path below `folder`.

    `name` and `field` are the source's name and spec field in messages. `room` is called before the download with the
    size in bytes and returns the progress callback.

    Raises:
        DatasetError: the repository, the revision or the file does not exist.
        AccessDeniedError: the hub requires a token, or a different one.
        UnavailableError: the hub does not answer.
        SettingsError: the path is invalid, or from `room`.
    """
    path = checked_key(file.path)
    with _opened(file, name, field) as client:
        found = client.ask("file", revision=file.revision, path=path)
        commit = str(found["commit"])
        log.info('source "%s": %s of %s at commit %s', name, path, file.repository, commit)
        client.download(commit, [path], folder, room(int(found["sizeBytes"] or 0)))
    return folder / path


@contextmanager
def _opened(file: HubFile, name: str, field: str) -> Iterator[HubClient]:
    client = HubClient(file, "dataset", _Explain(file, name, field))
    try:
        yield client
    finally:
        client.close()


@dataclass(frozen=True)
class _Explain:
    file: HubFile
    name: str
    field: str

    def __call__(self, fault: Fault, detail: str) -> StageError:
        file = self.file
        server = file.endpoint or DEFAULT_ENDPOINT
        where = f'source "{self.name}": {file.path} of {file.repository} (revision {file.revision}) at {server}'
        if fault == "missing":
            wrong = _MISSING.get(detail, "repository, revision and path")
            return DatasetError(
                f"{where} was not found ({detail}); correct {self.field}.huggingFace.{wrong}"
                + ("" if wrong == "path" or file.token_file else ", or set tokenSecretRef if the repository is private")
            )
        if fault == "denied":
            return AccessDeniedError(
                f"{where} may not be read ({detail}); accept its licence on the hub and "
                + (
                    f'check the token in Secret "{Path(file.token_file).parent.name}"'
                    if file.token_file
                    else f"set {self.field}.huggingFace.tokenSecretRef"
                )
            )
        return UnavailableError(
            f"{where}: it does not answer ({detail}); check {self.field}.huggingFace.endpoint and the network, "
            "or put the file on S3"
        )
