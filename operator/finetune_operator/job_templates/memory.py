"""How much memory a pod requests, where that depends on what prepare found."""

from finetune_api.compute import EXPORT_MEMORY_MIB, EXPORT_WEIGHTS_PER_BYTE, Resources
from finetune_api.spec import Stage
from finetune_operator.job_templates.attempt import Attempt

_MIB = 1024 * 1024


def defaults(attempt: Attempt, stage: Stage) -> Resources:
    """Return the resources of a stage for which the job says nothing: export's memory follows the model's size."""
    found = attempt.settings.resources[stage]
    if stage != "export" or attempt.parameters is None:
        return found
    export = attempt.plan.export
    weights = attempt.parameters if export.merges or export.lora_gguf else 0
    memory = EXPORT_MEMORY_MIB + -(-weights // (EXPORT_WEIGHTS_PER_BYTE * _MIB))
    return found.model_copy(update={"requests": {**(found.requests or {}), "memory": f"{memory}Mi"}})
