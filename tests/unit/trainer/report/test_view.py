"""What the sections of report.html say."""

from typing import Any

import pytest

from finetune_api.report import (
    AnswerFlags,
    AnswerReport,
    Bin,
    CheckReport,
    EvaluationReport,
    ExportReport,
    Lengths,
    ParityLimits,
    Report,
    StepValue,
    TrainingReport,
)
from finetune_api.status import Artifact, Effective, MemoryStatus, Parity
from finetune_trainer.report import view
from tests.support.sample_report import sample_report

_SHA = "0" * 64


def _answer(**parts: Any) -> AnswerReport:
    return AnswerReport.model_validate(
        {"prompt": "질문", "base": "a", "tuned": "b", "flags": {"base": [], "tuned": []}} | parts
    )


def _evaluation(*answers: AnswerReport, max_new_tokens: int | None = None) -> EvaluationReport:
    return EvaluationReport(
        verdict="Better", sentence="", holdout_rows=1, answers=list(answers), max_new_tokens=max_new_tokens
    )


def _export(parity: Parity | None, limits: ParityLimits | None = None) -> ExportReport:
    artifact = Artifact(name="Q4_K_M", type="GGUF", path="gguf/a.gguf", size_bytes=1, sha256=_SHA, parity=parity)
    return ExportReport(artifacts=[artifact], limits={} if limits is None else {"Q4_K_M": limits})


@pytest.mark.parametrize(
    ("verdict", "badge"),
    [("Better", "Better"), ("Worse", "Worse"), ("NotEnoughEvidence", "Not enough evidence")],
)
def test_the_verdict_is_a_badge_and_a_sentence(verdict: Any, badge: str) -> None:
    found = view.verdict(EvaluationReport(verdict=verdict, sentence="It fell by 0.97 +- 0.03.", holdout_rows=9))
    assert (found[0].text, found[1]) == (badge, "It fell by 0.97 ± 0.03.")


def test_without_an_evaluation_there_is_no_verdict() -> None:
    assert "no verdict" in view.verdict(None)[1]


def test_an_empty_report_has_no_key_figures() -> None:
    assert view.key_figures(Report()) == []


def test_key_figures_have_the_loss_before_and_after() -> None:
    found = {pair.term: pair.text for pair in view.key_figures(sample_report())}
    assert found["Loss on hold-out rows"] == "2.40 → 1.43"
    assert found["Time"] == "42 min 9 s"


def test_key_figures_of_preferences_have_the_accuracy() -> None:
    evaluation = EvaluationReport(
        verdict="Better", sentence="", holdout_rows=9, reward_accuracy=0.81, reward_margin=1.204
    )
    (found,) = view.key_figures(Report(evaluation=evaluation))
    assert found.text == "81\u00a0%"
    assert "Reward margin 1.204." in found.note


def test_the_curve_in_words_names_the_lowest_holdout_loss_and_the_kept_step() -> None:
    training = sample_report().training
    assert training is not None
    assert "lowest 1.429 at step 240. The model of step 240 is kept." in view.curve_summary(training)


def test_a_single_measurement_has_neither_a_start_nor_a_lowest() -> None:
    training = TrainingReport(steps=6, loss=[], holdout_loss=[StepValue(step=6, value=3.043)], kept_step=6)
    assert view.curve_summary(training) == "Loss on hold-out rows 3.043 at step 6. The model of step 6 is kept."


def test_a_run_without_losses_has_a_summary_too() -> None:
    assert view.curve_summary(TrainingReport(steps=3, loss=[], kept_step=3)) == "The model of step 3 is kept."


def test_answers_stand_in_the_order_before_instructions_after_files_expected() -> None:
    (found,) = view.questions(_evaluation(_answer(baseWithSystemPrompt="c", reference="d", gguf={"Q8_0": "e"})))
    assert [a.title for a in found.answers] == [
        "Before training",
        "Before, with the system prompt",
        "After training",
        "GGUF Q8_0",
        "Expected",
    ]


def test_files_that_answer_as_the_trained_model_are_only_named() -> None:
    (found,) = view.questions(_evaluation(_answer(gguf={"F16": "b", "Q8_0": "b", "Q4_K_M": "other"})))
    assert found.same == ["F16", "Q8_0"]
    assert [a.title for a in found.answers] == ["Before training", "After training", "GGUF Q4_K_M"]


def test_files_that_answer_alike_share_a_card() -> None:
    (found,) = view.questions(_evaluation(_answer(gguf={"Q5_K_M": "c", "Q4_K_M": "c"})))
    assert found.answers[-1].title == "GGUF Q5_K_M, Q4_K_M"


def test_flags_are_in_words() -> None:
    (found,) = view.questions(_evaluation(_answer(flags=AnswerFlags(base=["Loop", "NoStop"], tuned=[]))))
    assert found.answers[0].flags == ["repeats itself", "cut off"]


@pytest.mark.parametrize(("text", "wanted"), [("환불 policy", "ko"), ("refund", None), ("ㅋㅋ", None), ("", None)])
def test_text_with_korean_syllables_is_korean(text: str, wanted: str | None) -> None:
    assert view.language(text) == wanted


def test_the_gravest_check_comes_first() -> None:
    found = view.checks(
        [
            CheckReport(name=n, severity=s, count=1, message="m")
            for n, s in (("A", "Warn"), ("B", "Fail"), ("C", "Drop"))
        ]
    )
    assert [c.title for c in found] == ["B", "C", "A"]


@pytest.mark.parametrize(
    ("message", "wanted"),
    [
        ("in 3 rows the answer is empty", "In 3 rows the answer is empty."),
        ("dataset.sources has few rows", "dataset.sources has few rows."),
        ("Done.", "Done."),
    ],
)
def test_messages_become_sentences(message: str, wanted: str) -> None:
    assert view.sentence(message) == wanted


def test_the_longest_bar_is_full_and_a_small_one_can_be_seen() -> None:
    lengths = Lengths(
        unit="tokens",
        minimum=1,
        median=2,
        p95=3,
        maximum=4,
        histogram=[Bin(up_to=n, count=c) for n, c in ((1, 10_000), (2, 1), (3, 0))],
    )
    assert [b.width for b in view.length_bars(lengths)] == [100.0, 0.8, 0.0]


def test_times_stand_in_the_order_of_the_work_unknown_ones_last() -> None:
    found = view.timing_bars({"someNewPart": 1, "export": 2, "prove": 4, "prepare": 3})
    assert [b.label for b in found] == ["Prepare the data", "Verify the files", "Rest of the export", "Some new part"]


def test_settings_that_were_not_read_are_left_out() -> None:
    found = view.effective(Effective(precision="BF16"), MemoryStatus(peak_mib=2048))
    assert [(p.term, p.text) for p in found] == [("Precision", "BF16"), ("GPU memory at most", "2.0 GiB")]


def test_a_file_without_parity_has_no_row() -> None:
    assert view.parity(_export(None)) == []


def test_figures_beside_their_limits_are_met_or_missed() -> None:
    limits = ParityLimits(kl=0.05, top1=0.9, retained_gain=0.9)
    (row,) = view.parity(_export(Parity(kl="0.0500", top1="0.8900"), limits))
    assert [(p.text, p.limit, p.met) for p in row.proofs] == [
        ("0.050", "at most 0.050", True),
        ("89\u00a0%", "at least 90\u00a0%", False),
        ("not measured", "at least 90\u00a0%", None),
    ]


def test_figures_without_limits_are_neither_met_nor_missed() -> None:
    (row,) = view.parity(_export(Parity(kl="0.0500", top1="0.8900")))
    assert {(p.limit, p.met) for p in row.proofs} == {("", None)}


def test_a_cut_answer_has_the_number_of_its_tokens() -> None:
    answer = _answer(flags=AnswerFlags(base=[], tuned=["NoStop"]))
    (found,) = view.questions(_evaluation(answer, max_new_tokens=32))
    assert found.answers[1].flags == ["cut after 32 tokens"]


def test_the_answer_of_a_file_has_its_own_flags() -> None:
    answer = _answer(
        gguf={"Q4_K_M": "질문"}, flags=AnswerFlags(base=[], tuned=[], gguf={"Q4_K_M": ["RepeatsQuestion"]})
    )
    (found,) = view.questions(_evaluation(answer))
    assert found.answers[-1].flags == ["repeats the question"]


def test_warnings_of_result_and_data_are_shown_together() -> None:
    report = sample_report()
    assert report.data is not None
    assert report.evaluation is not None
    data = report.data.model_copy(update={"warnings": ["ManyEpochs: 20 epochs"]})
    found = view.warnings(report.model_copy(update={"data": data}))
    assert [pair.text for pair in found] == [*report.evaluation.warnings, "ManyEpochs: 20 epochs"]


def test_every_key_figure_of_the_result_says_when_to_worry() -> None:
    notes = {pair.term: pair.note for pair in view.key_figures(sample_report())}
    assert all("worry" in notes[term] for term in ("Loss on hold-out rows", "Forgetting"))
