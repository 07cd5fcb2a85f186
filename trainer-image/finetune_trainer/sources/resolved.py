"""Models and adapters, pinned: later stages fetch exactly these files."""

from finetune_api.base import Model


class ModelFile(Model):
    """One file of a model."""

    path: str
    size_bytes: int
    # The blob id of a hub file, the ETag of an S3 object, the sha256 of a local file.
    identity: str
    # For a local file: when it last changed (ns since 1970); None if that is too recent to rely on.
    changed_ns: int | None = None


class ResolvedModel(Model):
    """The model, pinned: later stages fetch exactly these files."""

    # Hub commit, or sha256 over the files' identities.
    revision: str
    # A portable name for adapter_config.json and model cards, such as org/name or the last folder of a URI.
    reference: str
    architecture: str
    parameters: int | None = None
    # True for a repository whose weights are stored in 4 bit (bitsandbytes).
    stored_in_4bit: bool = False
    files: list[ModelFile]


class ResolvedAdapter(Model):
    """The earlier adapter that training starts from, pinned."""

    uri: str
    # The run that made it, if another job did.
    run_id: str | None = None
    # For another job's adapter: its key below spec.output.s3.uri.
    folder: str | None = None
    # The checksum of adapter_model.safetensors.
    sha256: str
