"""The limits that each exported file was checked against, for the report."""

from collections.abc import Iterable

from finetune_api.report import ParityLimits
from finetune_api.spec import GGUFType, MergeBase
from finetune_api.status import Artifact
from finetune_trainer.export.parity import limits as parity_limits

_SIXTEEN_BIT: GGUFType = "F16"


def of(
    artifacts: Iterable[Artifact],
    gguf_types: Iterable[GGUFType],
    *,
    trained_in_4bit: bool,
    merge_base: MergeBase | None,
    parameters: int | None,
) -> dict[str, ParityLimits]:
    """Return the limits by the artifact's name. A GGUF is named by its type.

    A merged model is checked by the F16 file made from it, the adapter's GGUF together with the base's F16 file. Limits
    that are only for files whose weights are not proven are left out.
    """
    types: dict[str, GGUFType] = {gguf_type: gguf_type for gguf_type in gguf_types}
    found = {}
    for artifact in artifacts:
        if artifact.parity is None:
            continue
        required = parity_limits.limits(
            types.get(artifact.name, _SIXTEEN_BIT),
            other_weights=parity_limits.are_other_weights(
                trained_in_4bit, merge_base, beside_base=artifact.type == "LoRAGGUF"
            ),
            is_exact=True,
            parameters=parameters,
        )
        found[artifact.name] = ParityLimits(kl=required.kl, top1=required.top1)
    return found
