"""Bringing a cluster up, down and back to clean: the story that the other modules serve."""

from __future__ import annotations

import os
import signal
import time

from . import api, cleanup, components, configuration, network, node, pki, processes
from .build import build
from .layout import ClusterError, Layout
from .state import State, create, load, locked
from .waiting import poll


def up(name: str, *, full: bool, extra: list[str]) -> State:
    """Starts whatever of the cluster does not run yet; what runs stays as it is.

    ``extra`` names the components that a control plane shall have beyond its own three.
    Raises ClusterError if a component does not become ready, with the end of its log.
    """
    if full and os.geteuid() != 0:
        raise ClusterError(
            "a full cluster needs root (network namespace, mounts, containers): run it with "
            "sudo, or use --control-plane-only"
        )
    build("all" if full else "control-plane")
    layout = Layout(name)
    started = time.monotonic()
    # Subnets are given out under one lock; the cluster's own lock guards all the rest.
    with locked(layout.lock), locked(layout.lock.with_name(".subnets")):
        state = _state(layout, full=full, extra=extra)
    with locked(layout.lock):
        if full:
            node.prepare(state)
            if not network.exists(layout):
                # What still runs, if anything, is in a network that nobody can reach any more.
                processes.stop(state.processes.values())
                network.delete(layout)
            network.create(state)
        pki.create(state)
        configuration.write(state)
        _start_all(state)
        if full:
            node.register(state)
    kind = "cluster" if full else "control plane"
    print(f"{kind} {name} is up after {time.monotonic() - started:.1f} s", flush=True)
    return state


def down(name: str, *, purge: bool) -> None:
    """Ends the cluster and removes all it made, also after a half-failed ``up``.

    Unpacked images stay in the cache unless ``purge`` is set. Raises ClusterError if
    something does not go away.
    """
    layout = Layout(name)
    with locked(layout.lock):
        try:
            state = load(layout)
        except ClusterError:
            # Everything below is found by the paths and names of the cluster alone.
            state = None
        if state is not None and state.full:
            cleanup.remove_containers(state)
        recorded = dict(state.processes) if state is not None else {}
        # Its store of images outlives the cluster, so it may end in peace; the rest need not.
        keeper = [recorded.pop("containerd")] if "containerd" in recorded else []
        processes.stop(keeper)
        processes.stop(recorded.values(), grace_seconds=0.5)
        processes.stop(processes.naming(layout.root))
        if os.geteuid() == 0:
            cleanup.remove_kernel_objects(layout)
        cleanup.remove_files(layout, purge=purge)
        layout.lock.unlink()
    print(f"cluster {name} is down")


def restart(name: str, component: str) -> None:
    """Stops one component, if it runs, and starts it again. Raises ClusterError."""
    layout = Layout(name)
    with locked(layout.lock):
        state = running(layout)
        part = components.component(state, component)
        if component in state.processes:
            processes.stop([state.processes[component]], part.stop_seconds)
        _start(state, component)
        _wait(state, component)
        if component == "etcd":
            _wait(state, "apiserver")
        if component == "kubelet":
            # A kubelet may forget at its start the resources that others have advertised.
            node.register(state)


def kill(name: str, component: str, number: signal.Signals) -> None:
    """Sends a signal to one component and leaves it as it then is. Raises ClusterError."""
    state = running(Layout(name))
    components.component(state, component)
    process = state.processes.get(component)
    if process is None or not processes.alive(process):
        raise ClusterError(f"{component} of cluster {name} does not run")
    processes.send(process, number)


def running(layout: Layout) -> State:
    """The state of a cluster that was brought up. Raises ClusterError if there is none."""
    state = load(layout)
    if state is None:
        raise ClusterError(f"there is no cluster {layout.name}: run `up --name {layout.name}`")
    return state


def health(state: State) -> dict[str, str | None]:
    """For every component None, or what is wrong with it."""
    report: dict[str, str | None] = {}
    for name in state.components:
        if not processes.alive(state.processes.get(name)):
            report[name] = "does not run"
        else:
            report[name] = components.component(state, name).trouble()
    if state.full:
        report["node"] = node.trouble(state)
    return report


def _state(layout: Layout, *, full: bool, extra: list[str]) -> State:
    wanted = list(components.FULL) if full else [*components.CONTROL_PLANE, *extra]
    state = load(layout)
    if state is None:
        state = create(layout.name, full=full, components=wanted)
    elif state.full != full:
        kind = "full" if state.full else "control-plane-only"
        raise ClusterError(
            f"cluster {layout.name} exists already and is {kind}: run `down --name "
            f"{layout.name}` first, or give another --name"
        )
    state.components += [name for name in wanted if name not in state.components]
    state.save()
    return state


def _start_all(state: State) -> None:
    first = [name for name in state.components if name not in components.NEED_API]
    second = [name for name in state.components if name in components.NEED_API]
    for group in (first, second):
        missing = [name for name in group if not processes.alive(state.processes.get(name))]
        for name in missing:
            _start(state, name)
        for name in group:
            _wait(state, name)
        if "containerd" in group:
            node.import_pause_image(state)
        if "apiserver" in group and state.full:
            node.register_services(state)
    # A namespace gets its default service account a moment after it exists, and no pod
    # can be created before; whoever calls `up` wants to create one.
    path = "/api/v1/namespaces/default/serviceaccounts/default"
    poll(
        "the default service account",
        lambda: None if api.find(state, path) else "not there yet",
        seconds=30,
    )


def _start(state: State, name: str) -> None:
    part = components.component(state, name)
    state.processes[name] = processes.start(
        network.inside(state, part.command),
        state.layout.logs / f"{name}.log",
        part.environment,
    )
    # At once, so that `down` knows it even if this process ends here.
    state.save()


def _wait(state: State, name: str) -> None:
    part = components.component(state, name)

    def trouble() -> str | None:
        if not processes.alive(state.processes.get(name)):
            raise ClusterError("it has ended")
        return part.trouble()

    log = state.layout.logs / f"{name}.log"
    try:
        poll(name, trouble, seconds=part.ready_seconds)
    except ClusterError as error:
        raise ClusterError(
            f"{name} did not become ready: {error}\nThe end of {log}:\n{processes.last_lines(log)}"
        ) from error
