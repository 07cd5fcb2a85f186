"""The content of each section of `report.html`, from the report alone, as plain text that the template escapes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from finetune_api.report import (
    AnswerFlag,
    AnswerReport,
    CheckReport,
    DataReport,
    EvaluationReport,
    ExportReport,
    Lengths,
    ParityLimits,
    Place,
    Report,
    RunReport,
    SampleRow,
    StepValue,
    TrainingReport,
)
from finetune_api.status import Artifact, Effective, MemoryStatus
from finetune_trainer.report.numbers import duration, figure, memory, share, words

_VERDICTS = {
    "Better": ("Better", "good"),
    "Worse": ("Worse", "bad"),
    "NotEnoughEvidence": ("Not enough evidence", "unsure"),
}
_NOT_JUDGED = "This run was not evaluated: there is no verdict."
_SEVERITIES = {"Fail": ("Refused", "bad"), "Drop": ("Left out", "unsure"), "Warn": ("Warning", "unsure")}
_FLAGS: dict[AnswerFlag, str] = {
    "Empty": "empty",
    "Loop": "repeats itself",
    "WrongLanguage": "in another language than the question",
    "NoStop": "does not end",
    "Copied": "copied from the training data",
}
_KINDS = {
    "LoRAAdapter": "LoRA adapter",
    "GGUF": "GGUF model",
    "LoRAGGUF": "LoRA adapter for llama.cpp",
    "MergedModel": "Merged model",
    "Modelfile": "Ollama Modelfile",
}
_MERGE_BASES = {
    "Original": "The adapter was merged into the original 16-bit weights.",
    "Trained": "The adapter was merged into the weights as training saw them.",
}
_PARTS = {
    "prepare": "Prepare the data",
    "check": "Check the GPU and the rows",
    "fetch": "Fetch the model",
    "load": "Load the model",
    "evaluateBase": "Evaluate before training",
    "train": "Train",
    "evaluateTuned": "Evaluate after training",
    "upload": "Upload",
    "merge": "Merge",
    "convert": "Convert to GGUF",
    "importance": "Measure the importance matrix",
    "quantize": "Quantize",
    "prove": "Verify the files",
    "answer": "Answer the questions with the files",
    "export": "Rest of the export",
}


@dataclass(frozen=True)
class Pair:
    """A term, its value and a note."""

    term: str
    text: str
    note: str = ""


@dataclass(frozen=True)
class Badge:
    """A short word with a tone: good, bad, unsure or plain."""

    text: str
    tone: str


@dataclass(frozen=True)
class Bar:
    """One row of a table with bars; `width` from 0 to 100."""

    label: str
    text: str
    width: float


@dataclass(frozen=True)
class Answer:
    """One answer; several GGUF files may share it."""

    title: str
    text: str
    flags: list[str]
    lang: str | None
    tone: str = "plain"


@dataclass(frozen=True)
class Question:
    """One prompt and all answers to it."""

    prompt: str
    lang: str | None
    answers: list[Answer]
    # GGUF types whose answer equals the model's after training, word for word.
    same: list[str]


@dataclass(frozen=True)
class Check:
    """One check of the data."""

    title: str
    badge: Badge
    message: str
    places: list[str]


@dataclass(frozen=True)
class Proof:
    """One measured figure beside its limit."""

    text: str
    limit: str
    met: bool | None


@dataclass(frozen=True)
class ParityRow:
    """How close one file is to the trained model."""

    name: str
    proofs: list[Proof]


def verdict(evaluation: EvaluationReport | None) -> tuple[Badge, str]:
    """Return the verdict as a badge and in one sentence."""
    if evaluation is None:
        return Badge("No verdict", "plain"), _NOT_JUDGED
    text, tone = _VERDICTS[evaluation.verdict]
    return Badge(text, tone), evaluation.sentence.replace(" +- ", " ± ")


def run_facts(run: RunReport) -> list[Pair]:
    """Return what identifies the run."""
    model = f"{run.model} ({run.revision[:12]})" if run.model and run.revision else run.model
    pairs = [("Base model", model), ("Method", run.method), ("Namespace", run.namespace)]
    pairs += [("Results", run.output_uri), ("Run", run.run_id)]
    return [Pair(term, text) for term, text in pairs if text]


def key_figures(report: Report) -> list[Pair]:
    """Return the key figures."""
    found = []
    evaluation, training = report.evaluation, report.training
    if evaluation is not None:
        base, tuned = evaluation.holdout_loss_base, evaluation.holdout_loss_tuned
        if base is not None and tuned is not None:
            rows = "1 row" if evaluation.holdout_rows == 1 else f"{evaluation.holdout_rows:,} rows"
            found.append(Pair("Loss on hold-out rows", f"{base:.2f} → {tuned:.2f}", f"{rows}; lower is better"))
        if evaluation.reward_accuracy is not None:
            margin = evaluation.reward_margin
            note = "" if margin is None else f"reward margin {figure(margin)}"
            found.append(Pair("Good answers preferred", share(evaluation.reward_accuracy), note))
        if evaluation.forgetting is not None:
            found.append(Pair("Forgetting", figure(evaluation.forgetting), "nats per token; lower is better"))
    if report.data is not None:
        found.append(Pair("Examples used", f"{report.data.examples:,}", f"of {report.data.rows:,} rows"))
    if training is not None:
        kept = (
            "the last one is kept" if training.kept_step == training.steps else f"step {training.kept_step:,} is kept"
        )
        found.append(Pair("Training steps", f"{training.steps:,}", kept))
        if training.memory is not None and training.memory.peak_mib is not None:
            found.append(Pair("GPU memory", memory(training.memory.peak_mib), "at most"))
    if report.timings:
        found.append(Pair("Time", duration(sum(report.timings.values())), "without waiting"))
    return found


def curve_summary(training: TrainingReport) -> str:
    """Return a description of the loss curve in words."""
    sentences = []
    if training.loss:
        sentences.append(f"Training loss {_from_to(training.loss)}.")
    if training.holdout_loss:
        best = min(training.holdout_loss, key=lambda p: p.value)
        lowest = f", lowest {_at(best)}" if len(training.holdout_loss) > 1 else ""
        sentences.append(f"Loss on hold-out rows {_from_to(training.holdout_loss)}{lowest}.")
    sentences.append(f"The model of step {training.kept_step:,} is kept.")
    return " ".join(sentences)


def _from_to(points: Sequence[StepValue]) -> str:
    return _at(points[0]) if len(points) == 1 else f"from {_at(points[0])} to {_at(points[-1])}"


def _at(point: StepValue) -> str:
    return f"{figure(point.value)} at step {point.step:,}"


def questions(answers: Sequence[AnswerReport]) -> list[Question]:
    """Return the answers side by side: before, with the system prompt alone, after, and from the GGUF files."""
    return [_question(answer) for answer in answers]


def _question(found: AnswerReport) -> Question:
    flags = found.flags
    answers = [_answer("Before training", found.base, flags.base)]
    if found.base_with_system_prompt is not None:
        text = found.base_with_system_prompt
        answers.append(_answer("Before, with the system prompt", text, flags.base_with_system_prompt or []))
    answers.append(_answer("After training", found.tuned, flags.tuned, "after"))
    others: dict[str, list[str]] = {}
    for gguf_type, text in found.gguf.items():
        others.setdefault(text, []).append(gguf_type)
    same = others.pop(found.tuned, [])
    answers += [_answer(f"GGUF {', '.join(types)}", text, []) for text, types in others.items()]
    if found.reference is not None:
        answers.append(_answer("Expected", found.reference, [], "expected"))
    return Question(found.prompt, language(found.prompt), answers, same)


def _answer(title: str, text: str, flags: Sequence[AnswerFlag], tone: str = "plain") -> Answer:
    return Answer(title, text, [_FLAGS[flag] for flag in flags], language(text), tone)


def language(text: str) -> str | None:
    """Return `ko` for a text with Hangul, so that screen readers read it in Korean; None: the page's language."""
    return "ko" if any("가" <= c <= "힣" for c in text) else None


def data_facts(data: DataReport) -> list[Pair]:
    """Return the counts."""
    found = [Pair("Rows", f"{data.rows:,}"), Pair("Used", f"{data.examples:,}")]
    if data.split is not None:
        found += [Pair("To train on", f"{data.split.train:,}"), Pair("Held out", f"{data.split.holdout:,}")]
    return [
        *found,
        Pair("Exact duplicates", f"{data.duplicates.exact:,}"),
        Pair("Near duplicates", f"{data.duplicates.near:,}"),
    ]


def checks(found: Sequence[CheckReport]) -> list[Check]:
    """Return the checks, the most severe first."""
    order = list(_SEVERITIES)
    return [
        Check(words(c.name), Badge(*_SEVERITIES[c.severity]), sentence(c.message), [place(p) for p in c.places])
        for c in sorted(found, key=lambda c: order.index(c.severity))
    ]


def sentence(text: str) -> str:
    """Return a message as a sentence, with a capital (unless it starts with a field's name) and a full stop."""
    first = text.partition(" ")[0]
    start = text if "." in first else text[:1].upper() + text[1:]
    return start if start.endswith((".", "!", "?")) else f"{start}."


def place(found: Place) -> str:
    """Return where a row is."""
    reason = f": {found.reason}" if found.reason else ""
    return f"{found.source}, {found.unit} {found.number:,}{reason}"


def length_bars(lengths: Lengths) -> list[Bar]:
    """Return the histogram."""
    most = max((b.count for b in lengths.histogram), default=0)
    return [Bar(f"{b.up_to:,}", f"{b.count:,}", _width(b.count, most)) for b in lengths.histogram]


def language_bars(data: DataReport) -> list[Bar]:
    """Return the share of the letters by script."""
    if data.languages is None:
        return []
    mix = data.languages
    shares = (("Hangul", mix.hangul), ("Latin", mix.latin), ("Other scripts", mix.other))
    return [Bar(name, share(value), _width(value, 1)) for name, value in shares]


def timing_bars(timings: Mapping[str, float]) -> list[Bar]:
    """Return the parts in the order in which they ran."""
    longest = max(timings.values(), default=0)
    order = list(_PARTS)
    parts = sorted(timings.items(), key=lambda item: order.index(item[0]) if item[0] in _PARTS else len(order))
    return [Bar(_PARTS.get(name, words(name)), duration(s), _width(s, longest)) for name, s in parts]


def _width(value: float, most: float) -> float:
    """Return a bar's length; every value above 0 is visible."""
    return 0.0 if value <= 0 or most <= 0 else max(0.8, round(100 * value / most, 1))


def effective(found: Effective | None, used: MemoryStatus | None) -> list[Pair]:
    """Return how training ran."""
    pairs = []
    for name, value in (found.to_json() if found else {}).items():
        pairs.append(Pair("GPU" if name == "gpu" else words(name), f"{value:,}" if isinstance(value, int) else value))
    if used and used.peak_mib is not None:
        pairs.append(Pair("GPU memory at most", memory(used.peak_mib)))
    if used and used.estimated_mib is not None:
        pairs.append(Pair("GPU memory estimated", memory(used.estimated_mib)))
    return pairs


def merged_into(export: ExportReport) -> str | None:
    """Return the sentence about the merge, if there was one."""
    return _MERGE_BASES[export.merge_base] if export.merge_base else None


def kind(artifact: Artifact) -> str:
    """Return what a file is."""
    return _KINDS[artifact.type]


def checksum_of(artifact: Artifact) -> str:
    """Return what the checksum is of; for a folder, its list of files."""
    return "sha256 of SHA256SUMS" if artifact.type == "MergedModel" else "sha256"


def settings(found: Mapping[str, str]) -> list[Pair]:
    """Return the job's settings by field."""
    return [Pair(*item) for item in found.items()]


def sample_language(sample: SampleRow) -> str | None:
    """Return the language of the row."""
    return language("".join(segment.text for segment in sample.segments))


def parity(export: ExportReport) -> list[ParityRow]:
    """Return the figures of every file that was compared with the trained model."""
    rows = []
    for artifact in export.artifacts:
        found = artifact.parity
        if found is None:
            continue
        limits = export.limits.get(artifact.name, ParityLimits())
        kl, top1, gain = (None if v is None else float(v) for v in (found.kl, found.top1, found.retained_gain))
        most = None if kl is None or limits.kl is None else kl <= limits.kl
        rows.append(
            ParityRow(
                artifact.name,
                [
                    Proof(_measured(kl, figure), "" if limits.kl is None else f"at most {figure(limits.kl)}", most),
                    _at_least(top1, limits.top1),
                    _at_least(gain, limits.retained_gain),
                ],
            )
        )
    return rows


def _at_least(value: float | None, limit: float | None) -> Proof:
    met = None if value is None or limit is None else value >= limit
    return Proof(_measured(value, share), "" if limit is None else f"at least {share(limit)}", met)


def _measured(value: float | None, text: Callable[[float], str]) -> str:
    return "not measured" if value is None else text(value)
