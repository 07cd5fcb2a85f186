"""What prepare leaves for the later stages, by method."""

import json
from pathlib import Path
from typing import Any

import pytest

from finetune_api.report import Report
from finetune_api.training_spec import Method
from finetune_trainer import methods
from finetune_trainer.run_folder.prepared import Prepared
from tests.support.trainer_job import TrainerJob, write_rows

_PAIRS = [{"prompt": f"{i}번은 어때?", "chosen": f"{i}번은 좋아.", "rejected": "몰라."} for i in range(120)]
_JUDGED = [{"prompt": f"{i}번은 어때?", "completion": f"{i}번은 좋아.", "label": i % 2 == 0} for i in range(120)]
_TEXTS = [{"text": f"{i}번은 스쿼트입니다."} for i in range(120)]


def _prepared(job: TrainerJob, rows: list[Any], method: Method) -> tuple[Path, Prepared]:
    write_rows(job.dataset, rows)
    job.plan["training"]["method"] = method
    assert job.run("prepare") == 0
    run = job.output / "gym" / "coach" / job.result()["runId"]
    return run, Prepared.model_validate_json((run / "prepared/prepared.json").read_bytes())


@pytest.mark.parametrize(("method", "rows"), [("SFT", _TEXTS), ("DPO", _PAIRS), ("ORPO", _PAIRS), ("KTO", _JUDGED)])
def test_train_reads_what_prepare_counted(job: TrainerJob, method: Method, rows: list[Any]) -> None:
    run, prepared = _prepared(job, rows, method)
    train = methods.of(method).read(run / "prepared/train.parquet")
    held = methods.of(method).read(run / "prepared/holdout.parquet")
    assert (len(train), len(held)) == (100, 20)
    assert {r.row_id for r in train} | {r.row_id for r in held} == set(range(120))
    assert prepared.dataset.supervised_tokens == sum(r.supervised for r in train)


def test_a_description_of_an_earlier_trainer_is_read(job: TrainerJob) -> None:
    _, prepared = _prepared(job, _TEXTS, "SFT")
    earlier = prepared.to_json() | {"longestTokens": 7}
    assert Prepared.model_validate_json(json.dumps(earlier)) == prepared


def test_pairs_are_asked_with_the_chosen_answer(job: TrainerJob) -> None:
    _, prepared = _prepared(job, _PAIRS, "DPO")
    assert len(prepared.questions) == 5
    asked = {row["prompt"]: row["chosen"] for row in _PAIRS}
    assert all(asked[q.prompt] == q.reference for q in prepared.questions)


def test_bad_answers_are_no_reference(job: TrainerJob) -> None:
    _, prepared = _prepared(job, _JUDGED, "KTO")
    good = {row["prompt"]: row["completion"] for row in _JUDGED if row["label"]}
    assert all(good[q.prompt] == q.reference for q in prepared.questions)


def test_plain_text_asks_nothing(job: TrainerJob) -> None:
    assert _prepared(job, _TEXTS, "SFT")[1].questions == []


def test_report_has_the_data_and_stays_in_the_bucket(job: TrainerJob) -> None:
    run, _ = _prepared(job, _PAIRS, "DPO")
    report = Report.model_validate_json((run / "report.json").read_bytes())
    assert report.report_version == 1
    assert report.data is not None
    assert report.data.split is not None
    assert (report.data.split.train, report.data.split.holdout) == (100, 20)
    assert report.data.lengths is not None
    train = methods.of("DPO").read(run / "prepared/train.parquet")
    held = methods.of("DPO").read(run / "prepared/holdout.parquet")
    assert report.data.lengths.maximum == max(row.length for row in (*train, *held))
    assert report.data.sample is not None
    assert "번은 좋아." in report.data.sample.segments[-1].text
    assert "번은 좋아." not in json.dumps(job.result(), ensure_ascii=False)


def test_result_says_what_the_later_stages_write_to_disk(job: TrainerJob) -> None:
    _prepared(job, _TEXTS, "SFT")
    # A tiny model on a volume: the rest is what libraries write.
    assert 1024 < job.result()["scratch"]["trainMiB"] < 1100


def test_a_question_is_asked_once(job: TrainerJob) -> None:
    hello = [{"role": "user", "content": "안녕하세요"}, {"role": "assistant", "content": "네."}]
    rows = [
        {"messages": [*hello, {"role": "user", "content": f"{i}번?"}, {"role": "assistant", "content": f"{i}번."}]}
        for i in range(60)
    ]
    questions = _prepared(job, rows, "SFT")[1].questions
    assert [(q.prompt, q.reference) for q in questions] == [("안녕하세요", "네.")]
