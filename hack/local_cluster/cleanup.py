"""Removing what a full cluster leaves in the kernel: containers, mounts, groups, network."""

from __future__ import annotations

import re
import shutil
import time
from pathlib import Path

from . import network, processes
from .components import ctr
from .layout import ClusterError, Layout
from .shell import run
from .state import Process, State

_NETWORK_RESULTS = Path("/var/lib/cni/results")


def cgroup_hierarchies() -> list[Path]:
    """The root of every control group hierarchy, of either version."""
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    return [Path(line.split()[4]) for line in mounts if line.rpartition(" - ")[2].split()[0] in ("cgroup", "cgroup2")]


def remove_containers(state: State) -> None:
    """Ends the kubelet, then all containers, so that containerd keeps images only.

    Containers that containerd can not remove any more end with their control group.
    """
    for name in ("kubelet", "scheduler", "controller-manager"):
        if name in state.processes:
            # With the kubelet alive, every pod that ends here would be started again.
            processes.stop([state.processes[name]])
    if not processes.alive(state.processes.get("containerd")):
        return
    try:
        # A task may end by itself in between: the list of containers tells the outcome.
        tasks = ctr(state, "tasks", "list", "-q").split()
        if tasks:
            ctr(state, "tasks", "delete", "--force", *tasks, check=False, timeout_seconds=120)
        names = ctr(state, "containers", "list", "-q").split()
        if names:
            ctr(state, "containers", "delete", *names, timeout_seconds=120)
    except ClusterError as error:
        print(f"containers are ended without containerd's help: {error}", flush=True)
        return
    # Nobody asks the network plugins to forget pods that end like this.
    for name in names:
        for result in _NETWORK_RESULTS.glob(f"*-{name}-*"):
            result.unlink(missing_ok=True)


def remove_kernel_objects(layout: Layout) -> None:
    """Ends what is left in the cluster's control groups, unmounts, removes the network.

    Raises ClusterError if something does not go away.
    """
    groups = [hierarchy / layout.cgroup for hierarchy in cgroup_hierarchies() if (hierarchy / layout.cgroup).is_dir()]
    processes.stop(_members(groups), grace_seconds=2)
    for group in groups:
        _remove_group(group)
    _unmount_below(layout.root)
    _unmount_below(layout.containerd_root)
    network.delete(layout)
    # The container network library caches its results at a fixed place.
    for result in _NETWORK_RESULTS.glob(f"{layout.cgroup}-*"):
        result.unlink(missing_ok=True)
    # So does the kubelet with links to the logs of containers.
    for link in Path("/var/log/containers").glob("*.log"):
        if link.is_symlink() and link.readlink().is_relative_to(layout.root):
            link.unlink(missing_ok=True)


def _members(groups: list[Path]) -> list[Process]:
    found = set()
    for group in groups:
        for listing in group.rglob("cgroup.procs"):
            for line in listing.read_text().split():
                process = processes.identify(int(line))
                if process is not None:
                    found.add(process)
    return list(found)


def _remove_group(group: Path) -> None:
    children = [path for path in group.rglob("*") if path.is_dir()]
    for path in [*sorted(children, key=lambda child: -len(child.parts)), group]:
        deadline = time.monotonic() + 5
        while True:
            try:
                path.rmdir()
                break
            except FileNotFoundError:
                break
            except OSError as error:
                # The kernel empties a group a moment after its last process has ended.
                if time.monotonic() > deadline:
                    raise ClusterError(f"{path} does not go away: {error}") from error
                time.sleep(0.05)


def _unmount_below(folder: Path) -> None:
    mounts = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        target = Path(re.sub(r"\\(\d{3})", lambda m: chr(int(m[1], 8)), line.split()[4]))
        if target.is_relative_to(folder):
            mounts.append(target)
    for target in reversed(mounts):
        run(["umount", "--lazy", str(target)])


def remove_files(layout: Layout, *, purge: bool) -> None:
    """Deletes the state folder, and with ``purge`` the unpacked images."""
    if layout.root.exists():
        shutil.rmtree(layout.root)
    if purge and layout.containerd_root.exists():
        shutil.rmtree(layout.containerd_root)
