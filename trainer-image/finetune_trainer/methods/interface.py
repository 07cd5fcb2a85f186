"""What a training method is, and what it is given: the model, the example, the predictions."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, TypeVar

from finetune_api.dataset_spec import DatasetFormat
from finetune_api.memory import Footprint
from finetune_api.plan import Plan
from finetune_trainer.errors import GuardError
from finetune_trainer.gpu.memory_settings import MemorySettings
from finetune_trainer.gpu.precision import Precision
from finetune_trainer.methods.rows import Row, TokenSequence

R = TypeVar("R", bound=Row)


@dataclass(frozen=True)
class LoadedModel:
    """The model with its adapter; `tokenizer` is the model's own."""

    model: Any
    tokenizer: Any
    precision: Precision


@dataclass(frozen=True)
class Decision:
    """What the trainer does at the end of a step."""

    save: bool
    stop: bool


class Progress(Protocol):
    """Is notified at each optimizer step; see `train.step_control`."""

    def step_begins(self, done: int) -> None:
        """A step begins; `done` steps are finished."""

    def step_ends(self, done: int) -> Decision:
        """A step ended; `done` counts it."""

    def logged(self, done: int, loss: float) -> None:
        """The loss of step `done` is known."""

    def saved(self, folder: Path, step: int) -> None:
        """The trainer wrote a checkpoint to `folder`."""


class Example(Protocol):
    """A row of a dataset; see `data.rows.example`. A method gets its messages through Rendering."""

    @property
    def row_id(self) -> int:
        """The number over all sources."""

    @property
    def rejected(self) -> str | None:
        """The answer that is worse than the last message, of a Preference row."""

    @property
    def label(self) -> bool | None:
        """Whether the answer is a good one, of a Binary row."""

    @property
    def text(self) -> str | None:
        """The whole row, of a Text row, which has no messages."""


class Answers(NamedTuple):
    """A conversation up to its last stop token, and where the answers in it are."""

    ids: list[int]
    # (start, end) of each answer that is shown as the model gives it; the stop token is a part of it.
    spans: list[tuple[int, int]]
    # Earlier answers that the chat template shows otherwise than the model gives them.
    left_out: int


class Rendering(Protocol):
    """The messages of one example in token ids, as the job's chat template shows them; see `data.tokens.encoder`.

    If the template cannot show the example, the example is invalid: no method has to handle that.
    """

    @property
    def maximum(self) -> int:
        """`model.maxSequenceLength`."""

    @property
    def responses_only(self) -> bool:
        """`training.trainOnResponsesOnly`."""

    @property
    def bos_token_id(self) -> int | None:
        """The token that begins a text, if the model has one."""

    def answers(self) -> Answers:
        """Return the whole conversation."""

    def last_answer(self, instead: str | None = None) -> tuple[list[int], list[int]]:
        """Return what stands before the last answer, and that answer with its stop token, or `instead` in its place."""

    def plain_text(self, text: str) -> tuple[list[int], list[int]]:
        """Return what the tokenizer begins a text with, and the text with the end-of-text token."""


class Predictions(Protocol):
    """What the model predicts, in evaluation mode and without padding; see `evaluation.scores`."""

    def mean_losses(self, sequences: Sequence[TokenSequence]) -> list[float]:
        """Return each one's mean negative log-likelihood over its supervised tokens, in nats; 0 if it has none."""

    def log_probabilities(self, answers: Sequence[Sequence[tuple[list[int], list[int]]]]) -> list[tuple[float, ...]]:
        """Return the log-probability of each answer after its prompt, summed over its tokens, in nats.

        `answers` has the (prompt, answer) pairs of each row.
        """


@dataclass(frozen=True)
class Score:
    """One row's figures.

    `loss` is the method's own; for SFT the mean over the row's supervised tokens, in nats. A reward is, for DPO and
    KTO, beta times how much likelier the answer became (the log-probability less that before training), and for ORPO
    beta times the log odds of an average token. A row of KTO has the one that fits its label.
    """

    loss: float
    good_reward: float | None = None
    bad_reward: float | None = None
    # For each answer, summed over its tokens, in nats; scores after training are compared with them.
    log_probabilities: tuple[float, ...] = ()


class TrainingMethod(ABC, Generic[R]):
    """Everything that is specific to one value of `training.method`. Other modules get it from `methods.of`."""

    # The dataset formats that it learns from.
    formats: ClassVar[tuple[DatasetFormat, ...]]
    # What one example takes in GPU memory.
    footprint: ClassVar[Footprint] = Footprint()
    # Whether its loss compares the model with itself before training, so that both have to compute alike.
    compared_with_reference: ClassVar[bool] = False
    # Whether it gains from several passes over the rows; others overfit within one or two.
    gains_from_passes: ClassVar[bool] = False
    # The class of its rows: a dataclass whose members are `row_id` and the columns.
    row: type[R]

    @abstractmethod
    def columns(self) -> list[tuple[str, Any]]:
        """Return (name, pyarrow type) of each Parquet column except `row_id`."""

    @abstractmethod
    def encode(self, example: Example, rendering: Rendering) -> R | str:
        """Return the row of an example in one of `formats`, or the reason why it is invalid, without its text."""

    @abstractmethod
    def score(
        self, plan: Plan, rows: Sequence[R], predictions: Predictions, base: Sequence[Score] | None
    ) -> list[Score]:
        """Return the score of each row; `base` are those before training, None if this is before training."""

    @abstractmethod
    def build(
        self,
        plan: Plan,
        loaded: LoadedModel,
        rows: Sequence[R],
        steps: Sequence[Sequence[int]],
        progress: Progress,
        folder: Path,
        memory_settings: MemorySettings,
        processes: int,
    ) -> Any:
        """Return the trainer (of transformers); its dataset is the rows of step 0, then of step 1, and so on.

        `steps` has the indices of the rows of each optimizer step; `folder` is where checkpoints are written;
        `processes` train together, each with its part of `training.batch_size`.
        """

    @abstractmethod
    def check_batches(self, trainer: Any, rows: Sequence[R], step: Sequence[int]) -> None:
        """Check that the first optimizer step learns exactly the rows and tokens that prepare chose.

        Raises:
            GuardError: a library changed rows, order or masks.
        """

    def filler(self, like: R) -> R:  # noqa: ARG002
        """Return a row that teaches nothing: several processes fill up a short step with it.

        Raises:
            GuardError: the method has none, and trains in one process.
        """
        raise GuardError(f"{type(self).__name__} has no row that teaches nothing")

    def schema(self) -> Any:
        """Return the pyarrow schema of its Parquet files."""
        import pyarrow as pa

        return pa.schema([*self.columns(), ("row_id", pa.int64())])

    def read(self, path: Path) -> list[R]:
        """Return the rows of a Parquet file that prepare wrote."""
        import pyarrow.parquet

        table = pyarrow.parquet.read_table(path, columns=self.schema().names)
        return [self.row(**row) for row in table.to_pylist()]
