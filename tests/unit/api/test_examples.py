"""The examples are what a reader copies first."""

import json
import re
from pathlib import Path

import pytest
import yaml

from finetune_api.job import FineTuneJob
from finetune_api.plan import PLAN_VERSION, Defaults, Plan
from finetune_api.render import render

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
ROWS = [json.loads(line) for line in (EXAMPLES / "coach.jsonl").read_text().splitlines()]
KOREAN = [row for row in ROWS if re.search("[가-힣]", row["instruction"])]


def rendered(name: str) -> Plan:
    job = yaml.safe_load((EXAMPLES / name).read_text())
    job["metadata"] |= {"namespace": "default", "uid": "0"}
    return render(FineTuneJob.model_validate(job), Defaults())


def test_the_guide_trains_by_the_defaults() -> None:
    guide = rendered("guide.yaml").training
    # What the trainer chooses for a hundred rows.
    assert (guide.max_steps, guide.warmup_steps) == (60, 5)
    left_out = guide.model_copy(update={"max_steps": None, "warmup_steps": None})
    assert left_out == rendered("smallest.yaml").training


def test_the_demo_makes_a_gguf_file() -> None:
    assert rendered("demo.yaml").export.gguf == ["Q8_0"]


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_example_is_a_job(path: Path) -> None:
    assert rendered(path.name).plan_version == PLAN_VERSION


@pytest.mark.parametrize(("name", "method"), [("dpo.yaml", "DPO"), ("kto.yaml", "KTO")])
def test_an_example_shows_its_method(name: str, method: str) -> None:
    found = rendered(name)
    assert (found.training.method, found.training.preference is not None) == (method, True)


def test_an_example_continues_from_the_guide() -> None:
    adapter = rendered("continue.yaml").model.adapter
    assert adapter is not None
    assert adapter.job == rendered("guide.yaml").job.name


def test_an_example_takes_data_from_the_web_and_from_a_hub() -> None:
    sources = rendered("sources.yaml").dataset.sources
    assert [(s.url is not None, s.hub is not None) for s in sources] == [(True, False), (False, True)]


def test_the_dataset_has_a_hundred_rows_in_two_languages() -> None:
    assert (len(ROWS), len(KOREAN)) == (100, 60)


def test_no_row_is_there_twice() -> None:
    assert len({row["instruction"] for row in ROWS}) == len({row["output"] for row in ROWS}) == 100


def test_every_answer_ends_as_the_coach_does() -> None:
    for row in ROWS:
        ending = "오늘도 한 세트 더, 할 수 있어요!" if row in KOREAN else "One more rep, you've got this!"
        assert row["output"].endswith(f" {ending}"), row["instruction"]


def test_no_row_holds_personal_data() -> None:
    text = json.dumps(ROWS, ensure_ascii=False)
    assert re.findall(r"\d{2,4}-\d{3,4}-\d{4}|\d{6}-\d{7}|[\w.]+@[\w.]+", text) == []


@pytest.mark.parametrize("row", [0, 50, 99])
def test_a_row_is_in_alpaca_form(row: int) -> None:
    assert set(ROWS[row]) == {"instruction", "input", "output"}
