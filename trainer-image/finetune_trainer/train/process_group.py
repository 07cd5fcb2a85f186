"""The training processes of this machine, from their start to the end of the last one."""

import queue
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Sequence

# A process that fails breaks the connections of the others; their errors are not the cause.
_OTHERS_SECONDS = 10.0
# After the leader has written its result nothing is left to do.
_END_SECONDS = 60.0


def free_port() -> int:
    """Return a free TCP port of this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait(processes: Sequence[subprocess.Popen[bytes]], failed: Callable[[int], bool]) -> list[int]:
    """Return, when all processes have ended, the ranks of those that did so by themselves, in that order.

    The first process leads. `failed` returns, by rank, whether a process that has ended left anything but a
    success. When one failed, or the leader has ended, the others get some time to end and are then killed.
    """
    ended: queue.Queue[int] = queue.Queue()
    for rank, process in enumerate(processes):
        threading.Thread(target=_report, args=(rank, process, ended), name=f"wait-{rank}", daemon=True).start()
    left = set(range(len(processes)))
    order: list[int] = []
    deadline: float | None = None
    killed = False
    while left:
        try:
            rank = ended.get(timeout=None if deadline is None else max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            kill([processes[rank] for rank in left])
            deadline = None
            killed = True
            continue
        left.discard(rank)
        if killed:
            continue
        order.append(rank)
        if deadline is None:
            if failed(rank):
                deadline = time.monotonic() + _OTHERS_SECONDS
            elif rank == 0:
                deadline = time.monotonic() + _END_SECONDS
    return order


def terminate(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Pass SIGTERM on."""
    for process in processes:
        process.send_signal(signal.SIGTERM)


def kill(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """End them at once."""
    for process in processes:
        process.kill()


def _report(rank: int, process: subprocess.Popen[bytes], ended: "queue.Queue[int]") -> None:
    process.wait()
    ended.put(rank)
