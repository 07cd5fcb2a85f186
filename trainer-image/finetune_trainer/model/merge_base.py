"""Chooses the weights that the adapter is added to."""

from finetune_api.plan import Plan
from finetune_api.spec import MergeBase
from finetune_trainer.errors import SettingsError

ADVICE = "set export.originalModel to the 16-bit repository it was made from"


def choose(plan: Plan, *, stored_in_4bit: bool) -> MergeBase | None:
    """Return what the adapter is merged into, or None if the plan merges nothing.

    Without 4-bit training both are the same, and it is "Original". Prepare decides; export reads it in `Prepared`.

    Raises:
        SettingsError: there are no 16-bit weights, or two.
    """
    export = plan.export
    if not export.merges and not export.lora_gguf:
        return None
    if not stored_in_4bit and export.original is not None:
        raise SettingsError("export.originalModel is set, and spec.model has 16-bit weights itself; leave it out")
    if export.merge_base == "Trained" and export.original is not None:
        raise SettingsError(
            "export.originalModel is what mergeBase Original merges into, and mergeBase is Trained; leave one out"
        )
    has_16_bit = not stored_in_4bit or export.original is not None
    if export.merge_base == "Original" and not has_16_bit:
        raise SettingsError(
            f"export.mergeBase is Original, and the model has its weights in 4 bit only; {ADVICE}, or set "
            "mergeBase to Trained"
        )
    if export.lora_gguf and not has_16_bit:
        raise SettingsError(
            "export.loraGGUF is for use and proof beside a 16-bit GGUF of the model, and the model has its weights in "
            f"4 bit only; {ADVICE}, or leave loraGGUF out"
        )
    if not export.merges:
        return None
    if plan.model.quantization == "None":
        return "Original"
    return export.merge_base or ("Original" if has_16_bit else "Trained")
