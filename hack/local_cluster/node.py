"""What makes a machine a node of the cluster: control groups, node object, DNS, volumes."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

from . import api, cleanup, images
from .components import ctr
from .configuration import PAUSE_IMAGE
from .layout import ClusterError, binaries
from .pki import DNS_SERVICE_ADDRESS
from .state import State
from .waiting import poll

GPU_RESOURCE = "nvidia.com/gpu"
STORAGE_CLASS = "local"
_VOLUMES = 8
_VOLUME_SIZE = "50Gi"
_NEEDED = {
    "nsenter": "util-linux",
    "ip": "iproute2",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "openssl": "openssl",
    "docker-registry": "docker-registry",
}


def prepare(state: State) -> None:
    """Checks the machine's packages and makes the control groups for the pods.

    Raises ClusterError naming what is missing.
    """
    missing = [package for command, package in _NEEDED.items() if shutil.which(command) is None]
    if not Path("/usr/lib/cni/bridge").exists():
        missing.append("containernetworking-plugins")
    if missing:
        raise ClusterError(f"packages are missing: {', '.join(missing)}: run hack/prerequisites")
    group = state.layout.cgroup
    base = Path("/sys/fs/cgroup")
    if (base / "cgroup.controllers").exists():
        _delegate(base)
        (base / group).mkdir(exist_ok=True)
        _delegate(base / group)
        return
    for hierarchy in cleanup.cgroup_hierarchies():
        (hierarchy / group).mkdir(exist_ok=True)
        # A new cpuset is empty, and a process can not enter an empty one.
        for setting in ("cpuset.cpus", "cpuset.mems"):
            if (hierarchy / setting).exists():
                (hierarchy / group / setting).write_text((hierarchy / setting).read_text())


def _delegate(group: Path) -> None:
    for controller in (group / "cgroup.controllers").read_text().split():
        try:
            (group / "cgroup.subtree_control").write_text(f"+{controller}")
        except OSError:
            # Some controllers can not be delegated; the kubelet names one that it misses.
            continue


def import_pause_image(state: State) -> None:
    """Gives containerd the image of the process that holds a pod together."""
    if PAUSE_IMAGE in ctr(state, "images", "list", "-q").split():
        return
    archive = state.layout.run / "pause.tar"
    images.write_archive(archive, PAUSE_IMAGE, binaries() / "pause", "/pause")
    ctr(state, "images", "import", "--local", str(archive))
    archive.unlink()


def register_services(state: State) -> None:
    """Creates the DNS service and the storage class, and lets CoreDNS read what it needs."""
    rbac = "/apis/rbac.authorization.k8s.io/v1"
    api.apply(
        state,
        f"{rbac}/clusterrolebindings",
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "cluster:dns"},
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "ClusterRole",
                "name": "cluster:dns",
            },
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "cluster:dns"}],
        },
    )
    api.apply(
        state,
        f"{rbac}/clusterroles",
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": "cluster:dns"},
            "rules": [
                {
                    "apiGroups": [""],
                    "resources": ["services", "pods", "namespaces", "endpoints"],
                    "verbs": ["list", "watch"],
                },
                {
                    "apiGroups": ["discovery.k8s.io"],
                    "resources": ["endpointslices"],
                    "verbs": ["list", "watch"],
                },
            ],
        },
    )
    ports = [
        {"name": "dns", "port": 53, "protocol": "UDP"},
        {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
    ]
    api.apply(
        state,
        "/api/v1/namespaces/kube-system/services",
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "kube-dns", "labels": {"k8s-app": "kube-dns"}},
            "spec": {"clusterIP": DNS_SERVICE_ADDRESS, "ports": ports},
        },
    )
    api.apply(
        state,
        "/apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices",
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": "kube-dns",
                "labels": {
                    "kubernetes.io/service-name": "kube-dns",
                    "endpointslice.kubernetes.io/managed-by": "local-cluster",
                },
            },
            "addressType": "IPv4",
            "endpoints": [{"addresses": [state.address], "conditions": {"ready": True}}],
            "ports": ports,
        },
    )
    api.apply(
        state,
        "/apis/storage.k8s.io/v1/storageclasses",
        {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {
                "name": STORAGE_CLASS,
                "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
            },
            "provisioner": "kubernetes.io/no-provisioner",
            "volumeBindingMode": "WaitForFirstConsumer",
        },
    )
    offer_volumes(state)


def offer_volumes(state: State) -> None:
    """Makes the local volumes that a claim can bind to, and replaces those that were used up."""
    base = "/api/v1/persistentvolumes"
    for number in range(_VOLUMES):
        name = f"local-{number}"
        path = f"{base}/{name}"
        volume = api.find(state, path)
        if volume is not None and volume.get("status", {}).get("phase") in ("Released", "Failed"):
            api.delete(state, path)
            poll(f"deletion of volume {name}", partial(_still_there, state, path), seconds=30)
            shutil.rmtree(state.layout.volumes / name, ignore_errors=True)
        folder = state.layout.volumes / name
        folder.mkdir(parents=True, exist_ok=True)
        api.apply(state, base, _volume(state, name, folder))


def _still_there(state: State, path: str) -> str | None:
    return "still there" if api.find(state, path) else None


def _volume(state: State, name: str, folder: Path) -> api.Object:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": _VOLUME_SIZE},
            "accessModes": ["ReadWriteOnce", "ReadWriteMany", "ReadOnlyMany"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": STORAGE_CLASS,
            # Unlike a host path, a local volume gets the pod's fsGroup.
            "local": {"path": str(folder)},
            "nodeAffinity": {
                "required": {
                    "nodeSelectorTerms": [
                        {
                            "matchExpressions": [
                                {
                                    "key": "kubernetes.io/hostname",
                                    "operator": "In",
                                    "values": [state.node],
                                }
                            ]
                        }
                    ]
                }
            },
        },
    }


def register(state: State) -> None:
    """Waits for the node to be ready and advertises its GPUs. Raises ClusterError."""
    poll("the node", lambda: _not_ready(state), seconds=90)
    if state.gpus == 0:
        return
    # As Kubernetes documents for extended resources that no device plugin manages.
    patch = [
        {
            "op": "add",
            "path": f"/status/capacity/{GPU_RESOURCE.replace('/', '~1')}",
            "value": str(state.gpus),
        }
    ]
    api.request(
        state,
        "PATCH",
        f"/api/v1/nodes/{state.node}/status",
        patch,
        content_type="application/json-patch+json",
    )
    poll("the node's GPUs", lambda: _no_gpus(state), seconds=60)


def trouble(state: State) -> str | None:
    """What is wrong with the node, or None."""
    try:
        return _not_ready(state) or _no_gpus(state)
    except api.ApiError as error:
        return str(error)


def _not_ready(state: State) -> str | None:
    node = api.find(state, f"/api/v1/nodes/{state.node}")
    if node is None:
        return f"no node {state.node} has registered"
    for condition in node["status"].get("conditions", []):
        if condition["type"] == "Ready":
            if condition["status"] != "True":
                return f"not ready: {condition.get('message', '')}"
            taints = [taint["key"] for taint in node["spec"].get("taints", [])]
            return f"tainted: {', '.join(taints)}" if taints else None
    return "no Ready condition yet"


def _no_gpus(state: State) -> str | None:
    node = api.get(state, f"/api/v1/nodes/{state.node}")
    allocatable = node["status"].get("allocatable", {}).get(GPU_RESOURCE)
    if allocatable == str(state.gpus):
        return None
    return f"{allocatable or 'no'} {GPU_RESOURCE} allocatable instead of {state.gpus}"
