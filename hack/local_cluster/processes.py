"""Starting, finding and ending the cluster's processes, each by its own recorded id."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from .layout import ClusterError
from .state import Process

_STATE_FIELD = 0
_START_TIME_FIELD = 19


def start(command: list[str], log: Path, environment: Mapping[str, str] | None = None) -> Process:
    """Starts a program in a session of its own, so that it outlives this one.

    Its output is appended to ``log``. Raises ClusterError if the program does not exist.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        try:
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                cwd="/",
                env={**os.environ, **(environment or {})},
            )
        except FileNotFoundError as error:
            raise ClusterError(f"{command[0]} is missing: run `build`, then `up`") from error
    identity = identify(child.pid)
    # A child that has ended stays in the process table until this process waits for it.
    return identity if identity is not None else Process(child.pid, 0)


def identify(pid: int) -> Process | None:
    """The process that has this id now, or None if there is none that still runs."""
    try:
        content = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The program's name, in brackets, may hold blanks and brackets itself.
    fields = content.rpartition(")")[2].split()
    if fields[_STATE_FIELD] in "ZX":
        return None
    return Process(pid, int(fields[_START_TIME_FIELD]))


def alive(process: Process | None) -> bool:
    """Whether exactly this process, not a later owner of its id, still runs."""
    return process is not None and identify(process.pid) == process


def send(process: Process, number: signal.Signals) -> None:
    """Sends a signal to the process, if it still runs."""
    if alive(process):
        try:
            os.kill(process.pid, number)
        except ProcessLookupError:
            return


def stop(processes: Iterable[Process], grace_seconds: float = 10) -> None:
    """Ends all of them: SIGTERM at once, SIGKILL for those left after ``grace_seconds``.

    Raises ClusterError if one outlives even that by ten seconds.
    """
    remaining = [process for process in processes if alive(process)]
    for number, seconds in ((signal.SIGTERM, grace_seconds), (signal.SIGKILL, 10.0)):
        for process in remaining:
            send(process, number)
        deadline = time.monotonic() + seconds
        while remaining and time.monotonic() < deadline:
            time.sleep(0.05)
            remaining = [process for process in remaining if alive(process)]
    if remaining:
        ids = ", ".join(str(process.pid) for process in remaining)
        raise ClusterError(f"processes {ids} do not end, not even by SIGKILL")


def naming(folder: Path) -> list[Process]:
    """Every process with a file below ``folder`` among its arguments.

    All components and containerd's shims have one; no other cluster's has.
    """
    needle = os.fsencode(folder) + b"/"
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            arguments = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        # The program is not looked at: one that merely views a log is not ours to end.
        if any(_option_value(argument).startswith(needle) for argument in arguments[1:]):
            process = identify(int(entry.name))
            if process is not None and _is_component(arguments):
                found.append(process)
    return found


_PROGRAMS = {
    b"etcd",
    b"kube-apiserver",
    b"kube-controller-manager",
    b"kube-scheduler",
    b"kubelet",
    b"kube-proxy",
    b"coredns",
    b"containerd",
    b"containerd-shim-runc-v2",
    b"versitygw",
    b"docker-registry",
}


def _is_component(arguments: list[bytes]) -> bool:
    return arguments[0].rpartition(b"/")[2] in _PROGRAMS


def _option_value(argument: bytes) -> bytes:
    return argument.partition(b"=")[2] if argument.startswith(b"-") else argument


def last_lines(log: Path, count: int = 15) -> str:
    """The end of a component's log, for an error message."""
    try:
        lines = log.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return "(no log)"
    return "\n".join(line[:400] for line in lines[-count:]) or "(the log is empty)"
