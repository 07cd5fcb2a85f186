"""The network namespace of a full cluster, joined to the machine by a veth pair.

The namespace has no default route: what runs in it reaches the machine's end of the pair
and nothing beyond, so the cluster is air-gapped. The bridge of the pods and all of
kube-proxy's rules live and die with the namespace.
"""

from __future__ import annotations

import json

from .layout import Layout
from .pki import SERVICE_NETWORK
from .shell import run
from .state import State

POD_NETWORK = "10.244.0.0/16"


def inside(state: State, command: list[str]) -> list[str]:
    """The command, made to run in the cluster's network."""
    if not state.full:
        return command
    # Not `ip netns exec`: that remounts /sys and hides the control groups.
    return ["nsenter", f"--net={state.layout.network_namespace_path}", *command]


def create(state: State) -> None:
    """Makes the namespace and its link, or what is missing of them. Raises ClusterError."""
    name = state.layout.network_namespace
    if not exists(state.layout):
        run(["ip", "netns", "add", name])
    outer, inner = f"{name}-h", f"{name}-n"
    if not _has_link(outer):
        run(["ip", "link", "add", outer, "type", "veth", "peer", "name", inner, "netns", name])
    run(["ip", "address", "replace", f"{state.host_address}/30", "dev", outer])
    run(["ip", "link", "set", outer, "up"])
    in_namespace = ["ip", "-netns", name]
    run([*in_namespace, "address", "replace", f"{state.address}/30", "dev", inner])
    run([*in_namespace, "link", "set", inner, "up"])
    run([*in_namespace, "link", "set", "lo", "up"])
    # The kernel looks for a route before kube-proxy's rules turn a service's address into
    # a pod's. Pods have one by their bridge; the API server calling a webhook has not.
    run([*in_namespace, "route", "replace", SERVICE_NETWORK, "via", state.host_address])
    run(
        inside(
            state,
            ["sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward; "
             "f=/proc/sys/net/bridge/bridge-nf-call-iptables; [ ! -e $f ] || echo 1 > $f"],
        )
    )  # fmt: skip


def exists(layout: Layout) -> bool:
    """Whether the namespace is there under its name."""
    names = json.loads(run(["ip", "-json", "netns", "list"]) or "[]")
    return any(entry["name"] == layout.network_namespace for entry in names)


def delete(layout: Layout) -> None:
    """Removes the namespace, and with it its links and rules. Raises ClusterError."""
    outer = f"{layout.network_namespace}-h"
    if _has_link(outer):
        run(["ip", "link", "delete", outer])
    if exists(layout):
        run(["ip", "netns", "delete", layout.network_namespace])


def _has_link(name: str) -> bool:
    return run(["ip", "-brief", "link", "show", name], check=False) != ""
