"""The processes that train one adapter together, one per GPU. Most jobs have a single one.

All of them take the same steps, each with its share of the examples. The first leads: it alone writes the
bucket, reports progress and judges the result, and it decides what the others do next.
"""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from finetune_trainer.errors import GPUUnusableError
from finetune_trainer.runtime.node import Node

T = TypeVar("T")
# The leader may take hours to measure the hold-out rows while the others wait for it. Processes that hang are killed
# from outside: see `progress.watchdog`.
_PATIENCE = timedelta(days=30)


@dataclass(frozen=True)
class Ranks:
    """One process's rank among `size` processes."""

    rank: int = 0
    size: int = 1
    # The rank of the first process of its pod.
    first_here: int = 0

    @property
    def leads(self) -> bool:
        """Whether all others follow it."""
        return self.rank == 0

    @property
    def fetches(self) -> bool:
        """Whether it fetches the files for all processes of its pod."""
        return self.rank == self.first_here

    @property
    def alone(self) -> bool:
        """Whether it is the only process."""
        return self.size == 1

    def any_true(self, wanted: bool) -> bool:
        """Return whether `wanted` is true in any process. All have to call it."""
        if self.alone:
            return wanted
        import torch
        from torch import distributed

        found = torch.tensor(int(wanted))
        distributed.all_reduce(found, distributed.ReduceOp.MAX)
        return bool(found.item())

    def broadcast(self, value: T | None = None) -> T:
        """Return the leader's value in all processes; the others wait for it."""
        if self.alone:
            assert value is not None
            return value
        import torch
        from torch import distributed

        box: list[Any] = [value if self.leads else None]
        distributed.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        found: T = box[0]
        return found

    def broadcast_in_pod(self, value: T) -> T:
        """Return the value of the first process of the same pod; all wait until every process has called it."""
        if self.alone:
            return value
        from torch import distributed

        everyone: list[Any] = [None] * self.size
        distributed.all_gather_object(everyone, value)
        found: T = everyone[self.first_here]
        return found

    def seed_step(self, seed: int, step: int) -> None:
        """Seed the random numbers of one step (dropout's), so that they do not depend on where an attempt began.

        With a single process the checkpoint keeps their state; with several it would need that of other machines.
        """
        if self.alone:
            return
        import torch

        digest = hashlib.sha256(f"{seed}:{step}:{self.rank}".encode()).digest()
        torch.manual_seed(int.from_bytes(digest[:8], "big"))


def variables(node: Node, local: int, processes: int, port: int) -> dict[str, str]:
    """Return the environment of one of a pod's `processes`, with torchrun's variable names.

    The leader's process listens at `port`.
    """
    size = node.count * processes
    if size == 1:
        return {}
    return {
        "RANK": str(node.index * processes + local),
        "LOCAL_RANK": str(local),
        "WORLD_SIZE": str(size),
        "LOCAL_WORLD_SIZE": str(processes),
        "GROUP_RANK": str(node.index),
        # The leader's process serves; its own pod needs no name for that.
        "MASTER_ADDR": "127.0.0.1" if node.leads else node.host,
        "MASTER_PORT": str(port),
    }


def join(environment: Mapping[str, str] = os.environ) -> Ranks:
    """Join the process group that the environment describes; a process without `WORLD_SIZE` is alone.

    Raises:
        GPUUnusableError: there are fewer GPUs than processes.
    """
    size = int(environment.get("WORLD_SIZE", "1"))
    if size == 1:
        return Ranks()
    import torch
    from torch import distributed

    on_gpu = torch.cuda.is_available()
    local = int(environment["LOCAL_RANK"])
    if on_gpu:
        there = torch.cuda.device_count()
        if local >= there:
            raise GPUUnusableError(
                f"this pod sees {there} GPUs and training needs {environment['LOCAL_WORLD_SIZE']}; another node will "
                "be tried"
            )
        torch.cuda.set_device(local)
    else:
        # accelerate would call it cpu:0, which torch.load cannot map: a checkpoint could not be resumed.
        os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"
    # Flags and messages go through the CPU.
    distributed.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo", timeout=_PATIENCE)
    rank = distributed.get_rank()
    return Ranks(rank, distributed.get_world_size(), rank - local)
