"""The report that each stage adds to."""

from pathlib import Path

import pytest

from finetune_api.report import DataReport, Duplicates, EvaluationReport, Report, StepValue, TrainingReport
from finetune_trainer.run_folder import report_json
from finetune_trainer.storage.folder import FileStore

DATA = DataReport(sources=[], rows=3, examples=3, checks=[], duplicates=Duplicates(exact=0, near=0))
TRAINING = TrainingReport(steps=2, loss=[StepValue(step=1, value=2.0)], kept_step=2)
EVALUATION = EvaluationReport(verdict="Better", sentence="It fell.", holdout_rows=9)


def written(root: Path) -> Report:
    return Report.model_validate_json((root / "run/report.json").read_text())


def test_parts_of_earlier_stages_stay(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    store.put_bytes("run/report.json", Report(data=DATA, timings={"prepare": 1.5}).model_dump_json().encode())
    report_json.add(store, "run", evaluation=EVALUATION)
    report_json.add(store, "run", training=TRAINING, timings={"train": 61.27})

    assert written(tmp_path) == Report(
        data=DATA, training=TRAINING, evaluation=EVALUATION, timings={"prepare": 1.5, "train": 61.3}
    )


def test_a_report_is_begun_where_there_is_none(tmp_path: Path) -> None:
    report_json.add(FileStore(tmp_path), "run", training=TRAINING)

    assert written(tmp_path) == Report(training=TRAINING)


@pytest.mark.parametrize("steps", [1, report_json.MOST_POINTS, report_json.MOST_POINTS + 1, 12_345])
def test_a_long_curve_keeps_its_shape_in_few_points(steps: int) -> None:
    found = [p.step for p in report_json.thinned([StepValue(step=n, value=0.0) for n in range(1, steps + 1)])]

    assert len(found) == min(steps, report_json.MOST_POINTS)
    assert (found[0], found[-1]) == (1, steps)
    assert found == sorted(set(found))
