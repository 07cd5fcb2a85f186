"""What each job is asked to do, and how it should end: pure, a function of the seed."""

import random
from dataclasses import dataclass, field, replace
from typing import Any

from finetune_api.spec import Stage
from tests.support.fake_kubelet import SPEC

# More than the faults that one job may meet.
_MANY_RETRIES = 20


@dataclass(frozen=True)
class Scenario:
    """A job, played by the fake trainer."""

    # Seconds that each stage takes if nothing happens.
    seconds: dict[Stage, float]
    # Seconds from SIGTERM to its end.
    farewell: float = 0.0
    retries: int = _MANY_RETRIES
    # Pods of train.
    nodes: int = 1
    # What a stage does each time it comes to its end; stages that are not named succeed.
    planted: dict[Stage, int] = field(default_factory=dict)
    # The reason of its failure; None: it succeeds.
    fails_with: str | None = None

    def spec(self) -> dict[str, Any]:
        """Return the spec of the FineTuneJob."""
        return {**SPEC, "retries": {"maximum": self.retries}, "compute": {"nodes": self.nodes}}

    def mended(self) -> "Scenario":
        """Return what it is once a user has removed the cause of its failure."""
        return replace(self, retries=_MANY_RETRIES, planted={}, fails_with=None)


# Weight, stage, exit code, retries, reason.
_BAD: tuple[tuple[int, Stage, int, int, str], ...] = (
    (2, "prepare", 65, _MANY_RETRIES, "InvalidDataset"),
    (1, "prepare", 77, _MANY_RETRIES, "AccessDenied"),
    (2, "train", 79, _MANY_RETRIES, "OutOfGPUMemory"),
    (2, "train", 1, 0, "Crashed"),
    (1, "export", 64, _MANY_RETRIES, "InvalidSettings"),
)
_GOOD_WEIGHT = 28
_SEVERAL_NODES = 0.2


def scenario(seed: int, number: int) -> Scenario:
    """Return the n-th job of a run."""
    dice = random.Random(f"job {seed} {number}")
    seconds: dict[Stage, float] = {
        "prepare": round(dice.uniform(0.2, 1.5), 2),
        "train": round(dice.uniform(1.0, 6.0), 2),
        "export": round(dice.uniform(0.2, 1.5), 2),
    }
    farewell = dice.choice((0.1, 0.1, 2.0, 6.0))
    drawn = dice.randrange(_GOOD_WEIGHT + sum(bad[0] for bad in _BAD))
    nodes = 2 if dice.random() < _SEVERAL_NODES else 1
    for weight, stage, code, retries, reason in _BAD:
        if drawn < weight:
            return Scenario(seconds, farewell, retries, nodes, {stage: code}, reason)
        drawn -= weight
    return Scenario(seconds, farewell, nodes=nodes)
