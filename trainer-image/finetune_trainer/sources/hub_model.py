"""A model on a hub."""

import base64
from collections.abc import Sequence
from pathlib import Path

from finetune_api.plan import HubSource
from finetune_trainer.errors import AccessDeniedError, ModelError, StageError, UnavailableError
from finetune_trainer.sources.hub_client import DEFAULT_ENDPOINT, Fault, HubClient
from finetune_trainer.sources.model_files import Listing, check_weights_present, is_needed
from finetune_trainer.sources.resolved import ModelFile
from finetune_trainer.storage.store import Progress


class HubModel:
    """See `model_files.ModelFiles`. The revision is a commit; a file's identity is its blob id or sha256."""

    def __init__(self, source: HubSource, commit: str | None = None) -> None:
        self._source = source
        self._commit = commit
        self._client = HubClient(source, "model", self._explain)

    @property
    def reference(self) -> str:
        """org/name."""
        return self._source.repository

    def listing(self) -> Listing:
        """Resolve the revision to a commit and list its files."""
        found = self._client.ask("resolve", revision=self._commit or self._source.revision)
        self._commit = str(found["commit"])
        files = [ModelFile.model_validate(f) for f in found["files"]]
        check_weights_present(self.reference, [f.path for f in files])
        return Listing(self._commit, tuple(f for f in files if is_needed(f.path)))

    def identified(self, listing: Listing) -> Listing:
        """Return it as it is: the hub lists the identities."""
        return listing

    def read_ranges(self, file: ModelFile, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Ask for each range."""
        found = self._client.ask("ranges", commit=self._commit, path=file.path, ranges=list(ranges))
        return [base64.b64decode(r) for r in found["ranges"]]

    def fetch(self, files: Sequence[ModelFile], folder: Path, progress: Progress) -> Path:
        """Download into `folder`."""
        assert self._commit is not None  # the files come from a listing
        self._client.download(self._commit, [f.path for f in files], folder, progress)
        return folder

    def close(self) -> None:
        """End the client's process."""
        self._client.close()

    def _explain(self, fault: Fault, detail: str) -> StageError:
        source = self._source
        server = source.endpoint or DEFAULT_ENDPOINT
        where = f"{source.repository} (revision {source.revision}) at {server}"
        if fault == "missing":
            return ModelError(
                f"{where} was not found ({detail}); check model.huggingFace.repository and revision, "
                "and set tokenSecretRef if the repository is private"
            )
        if fault == "denied":
            return AccessDeniedError(
                f"{where} may not be read ({detail}); accept its licence on the hub and "
                + (
                    f'check the token in Secret "{Path(source.token_file).parent.name}"'
                    if source.token_file
                    else "set model.huggingFace.tokenSecretRef"
                )
            )
        return UnavailableError(
            f"{server} does not answer ({detail}); check the network, or put the model on S3 or a volume"
        )
