"""`report.json` in a run's folder: the findings about data, training, result and files. Each stage adds its part.

It may contain rows of the dataset: it stays in the user's bucket and is never copied into status, events or logs.
"""

from typing import Annotated, Literal

from pydantic import Field

from finetune_api.base import Model, Sha256
from finetune_api.spec import MergeBase
from finetune_api.status import Artifact, Effective, MemoryStatus, Verdict

REPORT_VERSION = 1
MAXIMUM_PLACES = 5

# Fail: the stage ends. Drop: the rows are left out. Warn: the rows stay.
Severity = Literal["Fail", "Drop", "Warn"]


class Place(Model):
    """One row of one source: a line of text, or a row of a table or array, counted from 1."""

    source: str
    number: int
    unit: Literal["line", "row"] = "line"
    # What is wrong there, without the row's text.
    reason: str | None = None


class CheckReport(Model):
    """One check of the rows that found something."""

    # CamelCase, such as NearDuplicates.
    name: str
    severity: Severity
    count: int
    # The first rows.
    places: Annotated[list[Place], Field(max_length=MAXIMUM_PLACES)] = []
    # One sentence: what it means and what to do.
    message: str


class Bin(Model):
    """Rows with a length up to and including `up_to`, and above the previous bin."""

    up_to: int
    count: int


class Lengths(Model):
    """How long the rows are, question and answer together."""

    unit: Literal["tokens", "characters"]
    minimum: int
    median: int
    p95: int
    maximum: int
    histogram: list[Bin]


class LanguageMix(Model):
    """Share of the letters by script, each from 0 to 1; digits, signs and spaces are not counted."""

    hangul: float
    latin: float
    other: float


class SourceReport(Model):
    """One file."""

    name: str
    sha256: str
    rows: int
    # The kind of file, such as JSON Lines, CSV or Parquet; and the encoding of a text file.
    kind: str
    encoding: str | None = None
    # The format of the rows, such as Alpaca.
    format: str
    # What was done to read the file, one sentence each.
    notes: list[str] = []
    holdout: bool = Field(False, description="Named in dataset.holdout.sources.")


class Duplicates(Model):
    """Rows that are the same as an earlier one, or nearly."""

    exact: int
    near: int


class Split(Model):
    """Rows on each side."""

    train: int
    holdout: int


class Segment(Model):
    """A piece of a rendered row; `learned`: the model is trained to write it."""

    text: str
    learned: bool


class SampleRow(Model):
    """One row as the model sees it. For a preference row, this is the chosen answer."""

    place: Place
    segments: list[Segment]


class DataReport(Model):
    """What prepare found."""

    sources: list[SourceReport]
    rows: int
    # How many of the rows are used.
    examples: int
    checks: list[CheckReport]
    # Names of checks that were skipped for lack of a tokenizer.
    not_checked: list[str] = []
    lengths: Lengths | None = None
    languages: LanguageMix | None = None
    duplicates: Duplicates
    # What the status warns of besides the checks, such as ManyEpochs, each with its reason.
    warnings: list[str] = []
    split: Split | None = None
    sample: SampleRow | None = None


class StepValue(Model):
    """One measurement; `step` counts finished optimizer steps."""

    step: int
    value: float


class TrainingReport(Model):
    """What train did."""

    steps: int
    # Training loss: every step of a short run, evenly spread ones of a long run.
    loss: list[StepValue]
    holdout_loss: list[StepValue] = []
    kept_step: int
    effective: Effective | None = None
    memory: MemoryStatus | None = None


AnswerFlag = Literal["Empty", "RepeatsQuestion", "Loop", "WrongLanguage", "NoStop", "Copied"]


class AnswerFlags(Model):
    """Obvious faults of each answer."""

    base: list[AnswerFlag]
    base_with_system_prompt: list[AnswerFlag] | None = None
    tuned: list[AnswerFlag]
    # By GGUF type. Whether such an answer was cut or copied is known where it equals the model's.
    gguf: dict[str, list[AnswerFlag]] = {}


class AnswerReport(Model):
    """One question, and what was answered before and after training."""

    prompt: str
    # The answer of the hold-out row; None for a prompt of evaluation.prompts.
    reference: str | None = None
    # Without the job's system prompt, and with it: what instructions alone achieve. None if the job has none.
    base: str
    base_with_system_prompt: str | None = None
    # With the job's system prompt, as it was trained.
    tuned: str
    flags: AnswerFlags
    # By GGUF type: the file's answer in llama.cpp.
    gguf: dict[str, str] = {}


class EvaluationReport(Model):
    """How the result was judged."""

    verdict: Verdict
    # The verdict in words, with its figures.
    sentence: str
    holdout_rows: int
    # Means over the rows, each with the same weight, of the method's own loss; for SFT, nats per token.
    holdout_loss_base: float | None = None
    holdout_loss_tuned: float | None = None
    standard_error: float | None = Field(
        None, description="Standard error of the mean difference between the two, row by row."
    )
    reward_accuracy: float | None = None
    reward_margin: float | None = None
    forgetting: float | None = Field(None, description="Mean KL divergence from the base, in nats per token.")
    warnings: list[str] = []
    # Where answers were cut: evaluation.maxNewTokens.
    max_new_tokens: int | None = None
    answers: list[AnswerReport] = []


class ParityLimits(Model):
    """The limits of a file's parity. None: no limit."""

    kl: float | None = Field(None, description="At most, in nats per token.")
    top1: float | None = Field(None, description="At least, 0 to 1.")
    retained_gain: float | None = Field(None, description="At least.")


class ExportReport(Model):
    """What export made from the adapter."""

    # What the adapter was merged into; None: it was not merged.
    merge_base: MergeBase | None = None
    # With the parity of each file.
    artifacts: list[Artifact] = []
    # By the artifact's name: the limits of its parity.
    limits: dict[str, ParityLimits] = {}


class RunReport(Model):
    """Identifies the run."""

    namespace: str
    name: str
    run_id: Sha256
    # The run's folder: what the artifacts' paths are relative to.
    output_uri: str
    # The base model as the job names it, and its resolved revision.
    model: str | None = None
    revision: str | None = None
    method: str | None = None
    # By field below spec, such as training.learningRate.
    settings: dict[str, str] = {}


class Report(Model):
    """The whole file. A stage fills its part and keeps the others."""

    report_version: int = REPORT_VERSION
    run: RunReport | None = None
    data: DataReport | None = None
    training: TrainingReport | None = None
    evaluation: EvaluationReport | None = None
    export: ExportReport | None = None
    timings: dict[str, float] = Field({}, description="Seconds by part, such as prepare.")
