"""What each exported file had to reach, for the report: the limits that `parity_check.check` held it against."""

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

    A merged model is proven by the 16-bit file that is made of it, the adapter's GGUF beside such a file of the base.
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
            parameters=parameters,
        )
        found[artifact.name] = ParityLimits(kl=required.kl, top1=required.top1, retained_gain=required.retained_gain)
    return found
