"""The configuration files that the components read; every ``up`` writes them again."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from .layout import binaries, registry_storage
from .network import POD_NETWORK
from .pki import DNS_SERVICE_ADDRESS
from .state import CONTROL_PLANE_USERS, State

PAUSE_IMAGE = "localhost/cluster-pause:1"
_CNI_PLUGINS = "/usr/lib/cni"


def write(state: State) -> None:
    """Writes every file that the cluster's components need."""
    layout = state.layout
    for folder in (layout.config, layout.run, layout.data, layout.buckets, layout.logs):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    _write(layout.config / "tokens.csv", _tokens(state))
    for user in state.tokens:
        _write(layout.config / f"{user}.kubeconfig", _kubeconfig(state, user))
    if not state.full:
        return
    _write(layout.config / "resolv.conf", "")
    _write(layout.config / "kubelet.yaml", json.dumps(_kubelet(state), indent=1))
    _write(layout.config / "containerd.toml", _containerd(state))
    _write(layout.config / "cni" / "10-pods.conflist", json.dumps(_cni(state), indent=1))
    _write(layout.config / "certs.d" / state.registry / "hosts.toml", _registry_host(state))
    _write(layout.config / "registry.yaml", _registry(state))
    _write(layout.config / "Corefile", _corefile(state))


def _write(path: Path, content: str) -> None:
    # Some files are watched by a component that runs: it must see a change only if there
    # is one, and never half of it.
    if path.exists() and path.read_text() == content:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(content)
    temporary.replace(path)


def _tokens(state: State) -> str:
    users = {**CONTROL_PLANE_USERS, "node": (f"system:node:{state.node}", ["system:nodes"])}
    lines = []
    for key, token in state.tokens.items():
        user, groups = users[key]
        lines.append(f'{token},{user},{user},"{",".join(groups)}"\n')
    return "".join(lines)


def _kubeconfig(state: State, user: str) -> str:
    # JSON is YAML, and needs no library to write.
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": state.name,
            "clusters": [
                {
                    "name": state.name,
                    "cluster": {
                        "server": state.url("apiserver"),
                        "certificate-authority": str(state.layout.pki / "ca.crt"),
                    },
                }
            ],
            "users": [{"name": user, "user": {"token": state.tokens[user]}}],
            "contexts": [{"name": state.name, "context": {"cluster": state.name, "user": user}}],
        },
        indent=1,
    )


def _kubelet(state: State) -> dict[str, Any]:
    layout = state.layout
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": state.address,
        "port": state.ports["kubelet"],
        "healthzBindAddress": state.address,
        "healthzPort": state.ports["kubelet-health"],
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(layout.pki / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(layout.pki / "kubelet.crt"),
        "tlsPrivateKeyFile": str(layout.pki / "kubelet.key"),
        "clusterDomain": "cluster.local",
        "clusterDNS": [DNS_SERVICE_ADDRESS],
        "resolvConf": str(layout.config / "resolv.conf"),
        "containerRuntimeEndpoint": f"unix://{layout.containerd_socket}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{layout.cgroup}",
        "cgroupsPerQOS": True,
        "enforceNodeAllocatable": [],
        "failCgroupV1": False,
        "failSwapOn": False,
        # On a nearly full disk the kubelet would otherwise delete images that no
        # registry can bring back.
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%"},
        "podLogsDir": str(layout.run / "pod-logs"),
        "volumePluginDir": str(layout.run / "volume-plugins"),
        "serializeImagePulls": False,
        "nodeStatusUpdateFrequency": "5s",
        "syncFrequency": "10s",
        "shutdownGracePeriod": "0s",
    }


def _containerd(state: State) -> str:
    layout = state.layout
    # A TOML string is written like a JSON string as long as it holds plain characters.
    quote = json.dumps
    return f"""version = 3
root = {quote(str(layout.containerd_root))}
state = {quote(str(layout.run / "containerd"))}

[grpc]
address = {quote(str(layout.containerd_socket))}

[plugins."io.containerd.cri.v1.runtime"]
# Many build machines and containers lack CAP_SYS_RESOURCE; without this no sandbox starts there.
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true

[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = [{quote(_CNI_PLUGINS)}]
conf_dir = {quote(str(layout.config / "cni"))}

[plugins."io.containerd.cri.v1.runtime".containerd]
default_runtime_name = "runc"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
BinaryName = {quote(str(binaries() / "runc"))}
Root = {quote(str(layout.run / "runc"))}
SystemdCgroup = false

[plugins."io.containerd.cri.v1.images"]
# The registry beside it keeps the packed layers already, and some are gigabytes.
discard_unpacked_layers = true

[plugins."io.containerd.cri.v1.images".registry]
config_path = {quote(str(layout.config / "certs.d"))}

[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = {quote(PAUSE_IMAGE)}
"""


def _cni(state: State) -> dict[str, Any]:
    return {
        "cniVersion": "1.0.0",
        "name": state.layout.cgroup,
        "plugins": [
            {
                "type": "bridge",
                "bridge": "pods0",
                "isDefaultGateway": True,
                "ipMasq": True,
                "hairpinMode": True,
                "ipam": {
                    "type": "host-local",
                    "dataDir": str(state.layout.run / "pod-addresses"),
                    "ranges": [[{"subnet": POD_NETWORK}]],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }


def _registry_host(state: State) -> str:
    server = json.dumps(f"http://{state.registry}")
    return f'server = {server}\n\n[host.{server}]\ncapabilities = ["pull", "resolve"]\n'


def _registry(state: State) -> str:
    return json.dumps(
        {
            "version": "0.1",
            "log": {"level": "info", "accesslog": {"disabled": True}},
            "storage": {
                "filesystem": {"rootdirectory": str(registry_storage())},
                "delete": {"enabled": True},
            },
            "http": {"addr": state.registry},
        },
        indent=1,
    )


def _corefile(state: State) -> str:
    port = state.ports["dns"]
    zones = " ".join(f"{zone}:{port}" for zone in ("cluster.local", "in-addr.arpa", "ip6.arpa"))
    # Nothing is forwarded: a name from outside does not exist in an air-gapped cluster,
    # and a pod should learn that at once rather than by a timeout.
    return f"""{zones} {{
    bind {state.address}
    errors
    health {state.address}:{state.ports["dns-health"]}
    kubernetes cluster.local in-addr.arpa ip6.arpa {{
        kubeconfig {state.layout.config / "dns.kubeconfig"}
    }}
}}
.:{port} {{
    bind {state.address}
    errors
    template ANY ANY {{
        rcode NXDOMAIN
    }}
}}
"""
