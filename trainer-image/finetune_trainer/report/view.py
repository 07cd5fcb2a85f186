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
from finetune_trainer.report.texts import ENGLISH, Texts

_VERDICTS = {"Better": "good", "Worse": "bad", "NotEnoughEvidence": "unsure"}
_SEVERITIES = {"Fail": "bad", "Drop": "unsure", "Warn": "unsure"}
# In the order in which they run.
_PARTS = (
    "prepare", "check", "fetch", "load", "evaluateBase", "train", "evaluateTuned", "upload", "merge", "convert",
    "importance", "quantize", "prove", "answer", "export",
)  # fmt: skip
# Above this, in nats per token, a model has usually lost general abilities; evaluation warns from there on.
_MUCH_FORGETTING = 0.5


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
    # In the report's language, where it is not English.
    summary: str = ""


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


def verdict(evaluation: EvaluationReport | None, t: Texts = ENGLISH) -> tuple[Badge, str]:
    """Return the verdict as a badge and in one sentence."""
    if evaluation is None:
        return Badge(t["verdict_none"], "plain"), t["not_judged"]
    badge = Badge(t[f"verdict_{evaluation.verdict}"], _VERDICTS[evaluation.verdict])
    base, tuned = evaluation.holdout_loss_base, evaluation.holdout_loss_tuned
    if t["verdict_sentence"] and base is not None and tuned is not None:
        return badge, t["verdict_sentence"].format(f"{base:.2f}", f"{tuned:.2f}")
    return badge, evaluation.sentence.replace(" +- ", " ± ")


def run_facts(run: RunReport, t: Texts = ENGLISH) -> list[Pair]:
    """Return what identifies the run."""
    model = f"{run.model} ({run.revision[:12]})" if run.model and run.revision else run.model
    pairs = [("fact_model", model), ("fact_method", run.method), ("fact_namespace", run.namespace)]
    pairs += [("fact_results", run.output_uri), ("fact_run", run.run_id)]
    return [Pair(t[key], text) for key, text in pairs if text]


def key_figures(report: Report, t: Texts = ENGLISH) -> list[Pair]:
    """Return the key figures."""
    found = []
    evaluation, training = report.evaluation, report.training
    if evaluation is not None:
        base, tuned = evaluation.holdout_loss_base, evaluation.holdout_loss_tuned
        if base is not None and tuned is not None:
            count = evaluation.holdout_rows
            rows = t["one_row"] if count == 1 else t["many_rows"].format(f"{count:,}")
            found.append(Pair(t["figure_loss"], f"{base:.2f} → {tuned:.2f}", t["loss_means"].format(rows)))
        if evaluation.reward_accuracy is not None:
            margin = evaluation.reward_margin
            more = "" if margin is None else " " + t["preferred_margin"].format(figure(margin))
            found.append(Pair(t["figure_preferred"], share(evaluation.reward_accuracy), t["preferred_means"] + more))
        if evaluation.forgetting is not None:
            found.append(
                Pair(
                    t["figure_forgetting"],
                    figure(evaluation.forgetting),
                    t["forgetting_means"].format(_MUCH_FORGETTING),
                )
            )
    if report.data is not None:
        found.append(
            Pair(t["figure_examples"], f"{report.data.examples:,}", t["of_rows"].format(f"{report.data.rows:,}"))
        )
    if training is not None:
        kept = (
            t["kept_last"] if training.kept_step == training.steps else t["kept_step"].format(f"{training.kept_step:,}")
        )
        found.append(Pair(t["figure_steps"], f"{training.steps:,}", kept))
        if training.memory is not None and training.memory.peak_mib is not None:
            found.append(Pair(t["figure_memory"], memory(training.memory.peak_mib), t["at_most"]))
    if report.timings:
        found.append(Pair(t["figure_time"], duration(sum(report.timings.values())), t["without_waiting"]))
    return found


def curve_summary(training: TrainingReport, t: Texts = ENGLISH) -> str:
    """Return a description of the loss curve in words."""
    sentences = []
    if training.loss:
        sentences.append(t["curve_loss"].format(_from_to(training.loss, t)))
    if training.holdout_loss:
        best = min(training.holdout_loss, key=lambda p: p.value)
        lowest = t["curve_lowest"].format(_at(best, t)) if len(training.holdout_loss) > 1 else ""
        sentences.append(t["curve_holdout"].format(_from_to(training.holdout_loss, t), lowest))
    sentences.append(t["curve_kept"].format(f"{training.kept_step:,}"))
    return " ".join(sentences)


def _from_to(points: Sequence[StepValue], t: Texts) -> str:
    if len(points) == 1:
        return _at(points[0], t)
    return t["curve_from_to"].format(_at(points[0], t), _at(points[-1], t))


def _at(point: StepValue, t: Texts) -> str:
    return t["curve_at"].format(figure(point.value), f"{point.step:,}")


def warnings(report: Report, t: Texts = ENGLISH) -> list[Pair]:
    """Return what to know before the result is used: what the status warns of, the result's warnings first."""
    found = [*(report.evaluation.warnings if report.evaluation else []), *(report.data.warnings if report.data else [])]
    return [Pair(_finding(text.partition(":")[0], t), text) for text in found]


def _finding(name: str, t: Texts) -> str:
    """Return the sentence of a finding in the report's language; empty: its own sentence says it."""
    return t.get(f"finding_{name}", "")


def questions(evaluation: EvaluationReport, t: Texts = ENGLISH) -> list[Question]:
    """Return the answers side by side: before, with the system prompt alone, after, and from the GGUF files."""
    return [_question(answer, evaluation.max_new_tokens, t) for answer in evaluation.answers]


def _question(found: AnswerReport, most: int | None, t: Texts) -> Question:
    def answer(title: str, text: str, flags: Sequence[AnswerFlag], tone: str = "plain") -> Answer:
        return Answer(title, text, [_flag(flag, most, t) for flag in flags], language(text), tone)

    flags = found.flags
    answers = [answer(t["before"], found.base, flags.base)]
    if found.base_with_system_prompt is not None:
        answers.append(answer(t["before_system"], found.base_with_system_prompt, flags.base_with_system_prompt or []))
    answers.append(answer(t["after"], found.tuned, flags.tuned, "after"))
    others: dict[str, list[str]] = {}
    for gguf_type, text in found.gguf.items():
        others.setdefault(text, []).append(gguf_type)
    same = others.pop(found.tuned, [])
    answers += [
        answer(t["gguf_answer"].format(", ".join(types)), text, flags.gguf.get(types[0], []))
        for text, types in others.items()
    ]
    if found.reference is not None:
        answers.append(answer(t["expected"], found.reference, [], "expected"))
    return Question(found.prompt, language(found.prompt), answers, same)


def _flag(flag: AnswerFlag, most: int | None, t: Texts) -> str:
    return t["flag_NoStop_after"].format(f"{most:,}") if flag == "NoStop" and most else t[f"flag_{flag}"]


def language(text: str) -> str | None:
    """Return `ko` for a text with Hangul, so that screen readers read it in Korean; None: the page's language."""
    return "ko" if any("가" <= c <= "힣" for c in text) else None


def data_facts(data: DataReport, t: Texts = ENGLISH) -> list[Pair]:
    """Return the counts."""
    found = [Pair(t["rows"], f"{data.rows:,}"), Pair(t["used"], f"{data.examples:,}")]
    if data.split is not None:
        found += [Pair(t["to_train_on"], f"{data.split.train:,}"), Pair(t["held_out"], f"{data.split.holdout:,}")]
    return [
        *found,
        Pair(t["exact"], f"{data.duplicates.exact:,}"),
        Pair(t["near"], f"{data.duplicates.near:,}"),
    ]


def checks(found: Sequence[CheckReport], t: Texts = ENGLISH) -> list[Check]:
    """Return the checks, the most severe first."""
    order = list(_SEVERITIES)
    return [
        Check(
            words(c.name),
            Badge(t[f"severity_{c.severity}"], _SEVERITIES[c.severity]),
            sentence(c.message),
            [place(p, t) for p in c.places],
            _finding(c.name, t),
        )
        for c in sorted(found, key=lambda c: order.index(c.severity))
    ]


def sentence(text: str) -> str:
    """Return a message as a sentence, with a capital (unless it starts with a field's name) and a full stop."""
    first = text.partition(" ")[0]
    start = text if "." in first else text[:1].upper() + text[1:]
    return start if start.endswith((".", "!", "?")) else f"{start}."


def place(found: Place, t: Texts = ENGLISH) -> str:
    """Return where a row is."""
    reason = f": {found.reason}" if found.reason else ""
    return t["place"].format(found.source, t[f"unit_{found.unit}"], f"{found.number:,}") + reason


def length_bars(lengths: Lengths) -> list[Bar]:
    """Return the histogram."""
    most = max((b.count for b in lengths.histogram), default=0)
    return [Bar(f"{b.up_to:,}", f"{b.count:,}", _width(b.count, most)) for b in lengths.histogram]


def language_bars(data: DataReport, t: Texts = ENGLISH) -> list[Bar]:
    """Return the share of the letters by script."""
    if data.languages is None:
        return []
    mix = data.languages
    shares = ((t["hangul"], mix.hangul), (t["latin"], mix.latin), (t["other_scripts"], mix.other))
    return [Bar(name, share(value), _width(value, 1)) for name, value in shares]


def timing_bars(timings: Mapping[str, float], t: Texts = ENGLISH) -> list[Bar]:
    """Return the parts in the order in which they ran."""
    longest = max(timings.values(), default=0)
    parts = sorted(timings.items(), key=lambda item: _PARTS.index(item[0]) if item[0] in _PARTS else len(_PARTS))
    return [Bar(t.get(f"part_{name}", words(name)), duration(s), _width(s, longest)) for name, s in parts]


def _width(value: float, most: float) -> float:
    """Return a bar's length; every value above 0 is visible."""
    return 0.0 if value <= 0 or most <= 0 else max(0.8, round(100 * value / most, 1))


def effective(found: Effective | None, used: MemoryStatus | None, t: Texts = ENGLISH) -> list[Pair]:
    """Return how training ran."""
    pairs = []
    for name, value in (found.to_json() if found else {}).items():
        pairs.append(Pair("GPU" if name == "gpu" else words(name), f"{value:,}" if isinstance(value, int) else value))
    if used and used.peak_mib is not None:
        pairs.append(Pair(t["memory_peak"], memory(used.peak_mib)))
    if used and used.estimated_mib is not None:
        pairs.append(Pair(t["memory_estimated"], memory(used.estimated_mib)))
    return pairs


def merged_into(export: ExportReport, t: Texts = ENGLISH) -> str | None:
    """Return the sentence about the merge, if there was one."""
    return t[f"merged_{export.merge_base}"] if export.merge_base else None


def kind(artifact: Artifact, t: Texts = ENGLISH) -> str:
    """Return what a file is."""
    return t[f"kind_{artifact.type}"]


def checksum_of(artifact: Artifact, t: Texts = ENGLISH) -> str:
    """Return what the checksum is of; for a folder, its list of files."""
    return t["checksum_of_list"] if artifact.type == "MergedModel" else "sha256"


def settings(found: Mapping[str, str]) -> list[Pair]:
    """Return the job's settings by field."""
    return [Pair(*item) for item in found.items()]


def sample_language(sample: SampleRow) -> str | None:
    """Return the language of the row."""
    return language("".join(segment.text for segment in sample.segments))


def parity(export: ExportReport, t: Texts = ENGLISH) -> list[ParityRow]:
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
                    Proof(
                        _measured(kl, figure, t),
                        "" if limits.kl is None else t["limit_most"].format(figure(limits.kl)),
                        most,
                    ),
                    _at_least(top1, limits.top1, t),
                    _at_least(gain, limits.retained_gain, t),
                ],
            )
        )
    return rows


def _at_least(value: float | None, limit: float | None, t: Texts) -> Proof:
    met = None if value is None or limit is None else value >= limit
    return Proof(_measured(value, share, t), "" if limit is None else t["limit_least"].format(share(limit)), met)


def _measured(value: float | None, text: Callable[[float], str], t: Texts) -> str:
    return t["not_measured"] if value is None else text(value)
