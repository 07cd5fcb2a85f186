"""Where everything of the test cluster lies, and which versions it is made of."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

KUBERNETES_VERSION = "1.36.3"
RUNC_VERSION = "1.4.2"
OLLAMA_VERSION = "0.17.4"
MALGO_VERSION = "0.11.24"
KWOK_VERSION = "0.8.0"
KUEUE_VERSION = "0.17.0"

SOURCE = Path(__file__).resolve().parent / "programs"
"""The Go module of the programs; its go.mod has the versions of those that are not named above."""

DEFAULT_NAME = "default"


class ClusterError(Exception):
    """The cluster can not do what was asked; the message says why and what to do."""


def cache() -> Path:
    """The folder for everything that is slow to make, from ``FINETUNE_CACHE``."""
    configured = os.environ.get("FINETUNE_CACHE")
    return Path(configured) if configured else Path.home() / ".cache" / "finetune-operator"


def binaries() -> Path:
    """The folder that holds every program the cluster runs."""
    return cache() / "bin"


@dataclass(frozen=True)
class Layout:
    """The paths of one cluster.

    Raises ClusterError for a name that could not be part of a network interface's name.
    """

    name: str

    def __post_init__(self) -> None:
        # Interface names end at 15 characters, and ours carry the prefix "ft-" and a suffix.
        if not re.fullmatch(r"[a-z][a-z0-9]{0,9}", self.name):
            raise ClusterError(
                f"cluster name {self.name!r} is not valid: use 1 to 10 lower-case letters and digits, a letter first"
            )

    @property
    def root(self) -> Path:
        return cache() / "cluster" / self.name

    @property
    def lock(self) -> Path:
        # Beside the state folder, so that `down` can delete the folder while holding the lock.
        return cache() / "cluster" / f"{self.name}.lock"

    @property
    def state_file(self) -> Path:
        return self.root / "state.json"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def config(self) -> Path:
        return self.root / "config"

    @property
    def pki(self) -> Path:
        return self.root / "pki"

    @property
    def run(self) -> Path:
        """Sockets and mounts; everything here is gone after ``down``."""
        return self.root / "run"

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def buckets(self) -> Path:
        return self.data / "s3"

    @property
    def volumes(self) -> Path:
        return self.data / "volumes"

    @property
    def kubeconfig(self) -> Path:
        return self.config / "admin.kubeconfig"

    @property
    def containerd_root(self) -> Path:
        # Outside the state folder: unpacked images are slow to bring back, so they
        # survive `down` unless it purges them.
        return cache() / "containerd" / self.name

    @property
    def containerd_socket(self) -> Path:
        return self.run / "containerd.sock"

    @property
    def network_namespace(self) -> str:
        return f"ft-{self.name}"

    @property
    def network_namespace_path(self) -> Path:
        return Path("/run/netns") / self.network_namespace

    @property
    def cgroup(self) -> str:
        """The control group below which this cluster's kubelet places every pod."""
        return f"finetune-{self.name}"


def registry_storage() -> Path:
    """Layers of the local image registry, shared by all clusters and kept over ``down``."""
    return cache() / "registry"
