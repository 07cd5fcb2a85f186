"""Which faults come, in which order: pure, a function of the seed."""

import random
from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """A kind of fault. `weight`: how often it is dealt in one round; the longest and shortest duration in seconds."""

    name: str
    weight: int = 1
    shortest: float = 0.0
    longest: float = 0.0


# Whose injectors are in the module of the group's name.
PROCESSES = (
    Kind("operator-kill", 3, 0.0, 3.0),
    Kind("operator-freeze", 2, 2.0, 25.0),
    Kind("apiserver-kill", 1, 0.0, 2.0),
    Kind("apiserver-restart", 1),
    Kind("etcd-kill", 1, 0.0, 2.0),
    Kind("controller-manager-kill", 1, 0.0, 4.0),
)
NETWORK = (
    Kind("watches-dropped", 2),
    Kind("watches-gone", 2, 1.0, 5.0),
    Kind("too-many-requests", 2, 2.0, 8.0),
    Kind("internal-errors", 2, 2.0, 8.0),
    Kind("slow-answers", 2, 3.0, 12.0),
    Kind("requests-lost", 2, 2.0, 6.0),
    Kind("answers-lost", 4, 2.0, 6.0),
)
PODS = (
    Kind("pod-deleted", 2),
    Kind("pod-force-deleted", 2),
    Kind("pod-evicted", 2),
    Kind("node-lost", 2, 3.0, 12.0),
    Kind("storage-refuses", 1, 1.0, 4.0),
    Kind("storage-slow", 1, 2.0, 6.0),
    Kind("exit-1", 1),
    Kind("exit-75", 1),
    Kind("exit-80", 1),
    Kind("exit-137", 1),
    Kind("out-of-memory", 1),
    Kind("message-lost", 3),
    Kind("message-garbled", 1),
    Kind("clock-wrong", 2),
)
USERS = (
    Kind("job-deleted", 3),
    Kind("job-orphaned", 1),
    Kind("finished-job-deleted", 1),
    Kind("config-map-deleted", 1),
    Kind("spec-edited", 2),
    Kind("recreated", 3),
    Kind("suspended", 3, 0.0, 8.0),
    Kind("reopened", 2),
    Kind("expired", 2),
)
KINDS = (*PROCESSES, *NETWORK, *PODS, *USERS)


@dataclass(frozen=True)
class Fault:
    """One fault. `pause` before it and `seconds` of it in seconds; `choice`, 0 to 1, says which of what is there."""

    number: int
    kind: str
    pause: float
    seconds: float
    choice: float

    def __str__(self) -> str:
        return f"{self.kind} {self.seconds:.1f}s" if self.seconds else self.kind


def schedule(seed: int, count: int, pause: float, longest: float = 60.0) -> list[Fault]:
    """Return the faults. Each round deals all kinds in a new order, so that none is missing in a long run.

    Args:
        seed: the same gives the same faults.
        count: how many; a shorter schedule is the beginning of a longer one.
        pause: mean seconds between the beginnings of two faults.
        longest: no fault lasts longer, in seconds.
    """
    dice = random.Random(f"faults {seed}")
    faults: list[Fault] = []
    while len(faults) < count:
        deck = [kind for kind in KINDS for _ in range(kind.weight)]
        dice.shuffle(deck)
        for kind in deck:
            wait = round(dice.uniform(0.0, 2.0) * pause, 2)
            seconds = round(min(dice.uniform(kind.shortest, kind.longest), longest), 2)
            faults.append(Fault(len(faults) + 1, kind.name, wait, seconds, round(dice.random(), 4)))
    return faults[:count]
