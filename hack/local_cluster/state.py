"""What a running cluster must remember: its address, ports, credentials and processes."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from .layout import ClusterError, Layout, cache

CONTROL_PLANE_USERS = {
    "admin": ("admin", ["system:masters"]),
    "controller-manager": ("system:kube-controller-manager", []),
    "scheduler": ("system:kube-scheduler", []),
    "proxy": ("system:kube-proxy", []),
    "dns": ("cluster:dns", []),
}
"""Users of the token file: our name, the name and the groups the API server sees."""

LOOPBACK_PORTS = (
    "etcd",
    "etcd-peer",
    "apiserver",
    "controller-manager",
    "scheduler",
    "s3",
)

NAMESPACE_PORTS = {
    "etcd": 2379,
    "etcd-peer": 2380,
    "apiserver": 6443,
    "controller-manager": 10257,
    "scheduler": 10259,
    "kubelet": 10250,
    "kubelet-health": 10248,
    "proxy-health": 10256,
    "dns": 53,
    "dns-health": 8181,
    "s3": 7070,
    "registry": 5000,
}


@dataclass(frozen=True)
class Process:
    """One process of the cluster; ``started`` tells it from a later owner of its id."""

    pid: int
    started: int


@dataclass
class State:
    """The state file, as an object.

    ``full`` is a cluster with a node, in a network namespace of its own (needs root);
    otherwise it is a control plane on loopback. ``subnet`` is the third part of
    10.200.N.0/30 for a full cluster.
    """

    name: str
    full: bool
    components: list[str]
    ports: dict[str, int]
    tokens: dict[str, str]
    s3_access_key: str
    s3_secret_key: str
    subnet: int = 0
    gpus: int = 0
    processes: dict[str, Process] = field(default_factory=dict)

    @property
    def layout(self) -> Layout:
        return Layout(self.name)

    @property
    def address(self) -> str:
        """The address at which every component of the cluster listens."""
        return f"10.200.{self.subnet}.2" if self.full else "127.0.0.1"

    @property
    def host_address(self) -> str:
        """The machine's own end of the veth pair of a full cluster."""
        return f"10.200.{self.subnet}.1"

    @property
    def node(self) -> str:
        return f"{self.name}-node"

    @property
    def registry(self) -> str:
        return f"{self.address}:{self.ports['registry']}"

    def url(self, port: str, scheme: str = "https") -> str:
        return f"{scheme}://{self.address}:{self.ports[port]}"

    def save(self) -> None:
        """Writes the state file so that a reader sees the old or the new one, never a half."""
        path = self.layout.state_file
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as stream:
            json.dump(asdict(self), stream, indent=1)
        temporary.replace(path)


def load(layout: Layout) -> State | None:
    """The state of a cluster, or None if there is no such cluster.

    Raises ClusterError if the file can not be read as ours.
    """
    try:
        content = json.loads(layout.state_file.read_text())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ClusterError(f"{layout.state_file} is damaged ({error}): run `down`") from error
    try:
        processes = {name: Process(**value) for name, value in content.pop("processes").items()}
        return State(**content, processes=processes)
    except (TypeError, KeyError, AttributeError) as error:
        raise ClusterError(f"{layout.state_file} was written by another version ({error}): run `down`") from error


def create(name: str, *, full: bool, components: list[str]) -> State:
    """A new cluster's state with fresh ports and random credentials, not yet saved."""
    users = [*CONTROL_PLANE_USERS, *(["node"] if full else [])]
    return State(
        name=name,
        full=full,
        components=components,
        ports=dict(NAMESPACE_PORTS) if full else _free_ports(LOOPBACK_PORTS),
        tokens={user: secrets.token_hex(24) for user in users},
        s3_access_key="FT" + secrets.token_hex(9).upper(),
        s3_secret_key=secrets.token_urlsafe(30),
        subnet=_free_subnet() if full else 0,
        gpus=8 if full else 0,
    )


def _free_ports(names: tuple[str, ...]) -> dict[str, int]:
    # All sockets stay open until the last port is known, so that no port is given twice.
    with ExitStack() as stack:
        ports = {}
        for name in names:
            listener = stack.enter_context(socket.socket())
            listener.bind(("127.0.0.1", 0))
            ports[name] = int(listener.getsockname()[1])
        return ports


def _free_subnet() -> int:
    taken = set()
    for path in (cache() / "cluster").glob("*/state.json"):
        other = load(Layout(path.parent.name))
        if other is not None and other.full:
            taken.add(other.subnet)
    return next(number for number in range(256) if number not in taken)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds the lock file ``path``; whoever comes second waits and says so.

    The holder may delete the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with path.open("w") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print(f"waiting for another command that holds {path}", file=sys.stderr, flush=True)
                fcntl.flock(stream, fcntl.LOCK_EX)
            # A file that was deleted meanwhile guards nothing.
            if path.exists() and os.path.samestat(os.fstat(stream.fileno()), path.stat()):
                yield
                return
