"""`report.json` in the run's folder, to which each stage adds its part."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from finetune_api.layout import REPORT
from finetune_api.report import (
    DataReport,
    EvaluationReport,
    ExportReport,
    Report,
    RunReport,
    StepValue,
    TrainingReport,
)
from finetune_trainer.storage.store import Store

# A chart has no more pixels than this.
MOST_POINTS = 500


def add(
    store: Store,
    folder: str,
    *,
    run: RunReport | None = None,
    data: DataReport | None = None,
    training: TrainingReport | None = None,
    evaluation: EvaluationReport | None = None,
    export: ExportReport | None = None,
    timings: Mapping[str, float] | None = None,
) -> Report:
    """Add parts to the report of the run in `folder`, create it if there is none, and return it."""
    report = read(store, folder)
    changed: dict[str, Any] = {
        "run": run,
        "data": data,
        "training": training,
        "evaluation": evaluation,
        "export": export,
    }
    report = report.model_copy(
        update={name: part for name, part in changed.items() if part is not None}
        | {"timings": report.timings | {name: round(seconds, 1) for name, seconds in (timings or {}).items()}}
    )
    store.put_bytes(f"{folder}/{REPORT}", json.dumps(report.to_json(), ensure_ascii=False, indent=1).encode())
    return report


def read(store: Store, folder: str) -> Report:
    """Return the report of the run in `folder`, an empty one if there is none yet."""
    there = store.get_bytes(f"{folder}/{REPORT}")
    return Report() if there is None else Report.model_validate_json(there)


def thinned(points: Sequence[StepValue]) -> list[StepValue]:
    """Return at most MOST_POINTS of the points, evenly spread, including the first and the last."""
    if len(points) <= MOST_POINTS:
        return list(points)
    last = len(points) - 1
    return [points[round(i * last / (MOST_POINTS - 1))] for i in range(MOST_POINTS)]
