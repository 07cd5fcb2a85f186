"""What a trainer logs beside the loss, under the names of metrics.jsonl."""

from collections.abc import Mapping
from typing import Any

_NAMES = {
    "rewards/chosen": "rewardChosen",
    "rewards/rejected": "rewardRejected",
    "rewards/accuracies": "rewardAccuracy",
    "kl": "klDivergence",
}


def figures(entry: Mapping[str, Any]) -> dict[str, float]:
    """Return the rewards in a log entry and their margin; nothing for SFT.

    They are those of the step's own rows before the step changes the model, as means over its micro-batches.
    """
    found = {name: float(entry[key]) for key, name in _NAMES.items() if key in entry}
    if "rewardChosen" in found and "rewardRejected" in found:
        found["rewardMargin"] = found["rewardChosen"] - found["rewardRejected"]
    return found
