"""Names a run by everything that its result depends on."""

import hashlib
import json
import os
from collections.abc import Sequence
from typing import Any

from finetune_api.plan import PLAN_VERSION, Plan
from finetune_trainer.prepared import ResolvedModel

# How the work is cut up and kept; neither changes the result.
_WITHOUT_EFFECT = {"microBatchSize", "checkpointSeconds", "checkpointSteps"}


def compute(plan: Plan, model: ResolvedModel, chat_template: str, dataset_sha256s: Sequence[str]) -> str:
    """Return the sha256 over data, model, settings and the trainer's own version (FINETUNE_BUILD_ID of its image).

    Where things come from and go to is left out: the same bytes from another bucket give the same run.
    """
    settings = plan.to_json()
    parts: dict[str, Any] = {
        "planVersion": PLAN_VERSION,
        "build": os.environ.get("FINETUNE_BUILD_ID", ""),
        "data": list(dataset_sha256s),
        "model": model.revision,
        "reference": model.reference,
        "template": chat_template,
        "loading": {k: settings["model"][k] for k in ("quantization", "maxSequenceLength")},
        "dataset": {k: v for k, v in settings["dataset"].items() if k not in ("sources", "templateFile")},
        "sourceNames": [s.name for s in plan.dataset.sources],
        "training": {k: v for k, v in settings["training"].items() if k not in _WITHOUT_EFFECT},
        "evaluation": settings["evaluation"],
        "export": settings["export"],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
