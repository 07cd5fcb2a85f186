"""What prepare hands to train and export: `prepared/prepared.json` in the run's folder, beside the Parquet files."""

from typing import Literal

from finetune_api.base import Model
from finetune_api.spec import MergeBase
from finetune_api.status import DatasetStatus, MemoryStatus
from finetune_trainer.sources.resolved import ResolvedAdapter, ResolvedModel

FOLDER = "prepared"
DESCRIPTION = f"{FOLDER}/prepared.json"
# Columns: those of the method (see `methods`), and row_id int64, the number over all sources.
TRAIN_ROWS = f"{FOLDER}/train.parquet"
HOLDOUT_ROWS = f"{FOLDER}/holdout.parquet"


class Question(Model):
    """A prompt that is answered before and after training."""

    prompt: str
    # The answer of the hold-out row; None for a prompt of the user.
    reference: str | None = None


class Prepared(Model):
    """Everything that later stages need to know about the data and the model."""

    run_id: str
    model: ResolvedModel
    # The 16-bit weights that the adapter is merged into, where they are not the model's own.
    original: ResolvedModel | None = None
    # What the adapter is merged into; None: the plan merges nothing.
    merge_base: MergeBase | None = None
    adapter: ResolvedAdapter | None = None
    template: Literal["Model", "Alpaca", "Custom"]
    # The Jinja template that rendered the rows, complete: it renders every prompt and is shipped unchanged.
    chat_template: str
    system_prompt: str | None = None
    # Token ids that end generation: the tokenizer's, the generation config's and the template's end of turn.
    stop_token_ids: list[int]
    stop_strings: list[str]
    total_steps: int
    memory: MemoryStatus | None = None
    dataset: DatasetStatus
    questions: list[Question]
