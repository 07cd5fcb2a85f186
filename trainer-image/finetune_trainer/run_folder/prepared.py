"""What prepare hands to train and export: `prepared/prepared.json` in the run's folder, beside the Parquet files."""

from typing import Literal

from finetune_api.base import Model
from finetune_api.status import DatasetStatus, MemoryStatus

FOLDER = "prepared"
DESCRIPTION = f"{FOLDER}/prepared.json"
# Columns, by method. SFT: input_ids list<int32>, completion_mask list<int8> (1: learned). DPO and ORPO: prompt_ids,
# chosen_ids, rejected_ids. KTO: prompt_ids, completion_ids, label bool. All: row_id int64, the number over all sources.
TRAIN_ROWS = f"{FOLDER}/train.parquet"
HOLDOUT_ROWS = f"{FOLDER}/holdout.parquet"


class ModelFile(Model):
    """One file of the pinned model."""

    path: str
    size_bytes: int
    # Of a hub file: its blob id; of an S3 object: its ETag; of a local file: sha256 of its bytes.
    identity: str
    # Of a local file: when its bytes or its name last changed (ns since 1970); None while that is too fresh to trust.
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
    # The run that made it, where another job did.
    run_id: str | None = None
    # Of another job's adapter: the key below spec.output.s3.uri.
    folder: str | None = None
    # Of adapter_model.safetensors.
    sha256: str


class Question(Model):
    """A prompt that is answered before and after training."""

    prompt: str
    # The hold-out row's own answer; None for a prompt of the user's.
    reference: str | None = None


class Prepared(Model):
    """Everything that later stages need to know about the data and the model."""

    run_id: str
    model: ResolvedModel
    # The 16-bit weights that the adapter is merged into, where they are not the model's own.
    original: ResolvedModel | None = None
    adapter: ResolvedAdapter | None = None
    template: Literal["Model", "Alpaca", "Custom"]
    # The Jinja that rendered the rows, with everything it reads: renders every prompt, and is shipped as it is.
    chat_template: str
    system_prompt: str | None = None
    # Ids at which generation stops: the tokenizer's, the generation config's and the template's end of turn.
    stop_token_ids: list[int]
    stop_strings: list[str]
    total_steps: int
    # Of the rows to train on.
    longest_tokens: int = 0
    memory: MemoryStatus | None = None
    dataset: DatasetStatus
    questions: list[Question]
