"""Computes the id of a run from everything that its result depends on."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from finetune_api.plan import PLAN_VERSION, Plan
from finetune_api.spec import MergeBase
from finetune_trainer.runtime.build_id import build_id
from finetune_trainer.sources.resolved import ResolvedAdapter, ResolvedModel

# How the work is divided, saved and watched; none of it changes the result.
_WITHOUT_EFFECT = {
    "microBatchSize",
    "gradientCheckpointing",
    "checkpointSeconds",
    "checkpointSteps",
    "hangTimeoutSeconds",
}
# Resolved below, or about the report alone.
_NOT_THE_FILES = {"mergeBase", "original", "reportLanguage"}
# Where things come from. The checksums of the content count instead.
_PLACES = {"sources", "holdoutSources", "templateFile"}


def compute(
    plan: Plan,
    model: ResolvedModel,
    chat_template: str,
    dataset_sha256s: Sequence[str],
    holdout_sha256s: Sequence[str] = (),
    adapter: ResolvedAdapter | None = None,
    original: ResolvedModel | None = None,
    merge_base: MergeBase | None = None,
) -> str:
    """Return the sha256 over data, model, template, settings and the trainer itself.

    Where things come from and go to is left out: the same bytes from another bucket give the same run. A job whose
    output is never reused does not share its runs.
    """
    settings = plan.to_json()
    parts: dict[str, Any] = {
        "planVersion": PLAN_VERSION,
        "build": build_id(),
        "data": list(dataset_sha256s),
        "holdout": list(holdout_sha256s),
        "sources": [[s.name, s.format] for s in (*plan.dataset.sources, *plan.dataset.holdout_sources)],
        # It covers all files, including configuration and tokenizer.
        "model": model.revision,
        "reference": model.reference,
        "adapter": adapter.sha256 if adapter else None,
        "template": chat_template,
        "loading": {k: settings["model"][k] for k in ("quantization", "maxSequenceLength")},
        "dataset": {k: v for k, v in settings["dataset"].items() if k not in _PLACES},
        "training": {k: v for k, v in settings["training"].items() if k not in _WITHOUT_EFFECT},
        "evaluation": {k: v for k, v in settings["evaluation"].items() if k != "gate"},
        "export": {k: v for k, v in settings["export"].items() if k not in _NOT_THE_FILES},
        "mergeBase": merge_base,
        "original": original.revision if original else None,
        "job": plan.job.uid if plan.output.reuse == "Never" else None,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
