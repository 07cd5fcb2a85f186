"""Describes the run of a report, for its heading and its table of settings."""

from collections.abc import Iterator, Mapping
from typing import Any

from finetune_api.plan import Plan
from finetune_api.report import RunReport
from finetune_trainer.data import length
from finetune_trainer.run_folder.prepared import Prepared


def describe(plan: Plan, prepared: Prepared, uri: str) -> RunReport:
    """Return the description of the run whose folder is `uri`.

    It contains the settings of the plan that affect the result, and no location, Secret or row.
    """
    model = plan.model.to_json()
    chosen = {
        "model": {name: model[name] for name in ("quantization", "maxSequenceLength") if name in model},
        "training": length.resolved(plan.training, prepared.total_steps).to_json(),
    }
    return RunReport(
        namespace=plan.job.namespace,
        name=plan.job.name,
        run_id=prepared.run_id,
        output_uri=uri,
        model=prepared.model.reference,
        revision=prepared.model.revision,
        method=plan.training.method,
        settings=dict(_flat(chosen, "")),
    )


def _flat(values: Mapping[str, Any], path: str) -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{path}{name}.")
        elif isinstance(value, list):
            yield f"{path}{name}", ", ".join(map(str, value))
        elif value is not None:
            yield f"{path}{name}", str(value).lower() if isinstance(value, bool) else str(value)
