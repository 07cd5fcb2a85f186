"""The cluster's components: how each is started, and how to tell that it is well."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from . import api
from .layout import ClusterError, binaries
from .network import POD_NETWORK
from .pki import SERVICE_NETWORK
from .shell import run
from .state import State

CONTROL_PLANE = ("etcd", "apiserver", "controller-manager")
FULL = (
    "etcd",
    "apiserver",
    "versitygw",
    "registry",
    "containerd",
    "controller-manager",
    "scheduler",
    "kubelet",
    "proxy",
    "dns",
)
"""In the order of their start: the ones that others need at once come first."""

NEED_API = ("controller-manager", "scheduler", "kubelet", "proxy", "dns")


@dataclass(frozen=True)
class Component:
    """One program: ``trouble`` returns None when it serves, else what is wrong."""

    command: list[str]
    trouble: Callable[[], str | None]
    environment: Mapping[str, str] = field(default_factory=dict)
    ready_seconds: float = 60
    stop_seconds: float = 10


def component(state: State, name: str) -> Component:
    """The component of that name. Raises ClusterError for a name this cluster lacks."""
    if name not in state.components:
        known = ", ".join(state.components)
        raise ClusterError(f"cluster {state.name} has no component {name!r}; it has: {known}")
    return _BUILDERS[name](state)


def _program(name: str) -> str:
    return str(binaries() / name)


def _etcd(state: State) -> Component:
    # Plain HTTP on loopback: of the namespace in a full cluster, where no pod sees it.
    client = f"http://127.0.0.1:{state.ports['etcd']}"
    peer = f"http://127.0.0.1:{state.ports['etcd-peer']}"
    return Component(
        command=[
            _program("etcd"),
            f"--name={state.name}",
            f"--data-dir={state.layout.data / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster={state.name}={peer}",
            # A cluster for tests may lose its data with the machine, and starts faster so.
            "--unsafe-no-fsync",
            "--log-level=warn",
        ],
        # The machine can not reach it in the namespace; the API server's check includes it.
        trouble=lambda: None,
        # Asked to end, it waits for watches that never end.
        stop_seconds=1,
    )


def _apiserver(state: State) -> Component:
    pki = state.layout.pki
    command = [
        _program("kube-apiserver"),
        f"--etcd-servers=http://127.0.0.1:{state.ports['etcd']}",
        f"--bind-address={state.address}",
        f"--advertise-address={state.address}",
        f"--secure-port={state.ports['apiserver']}",
        f"--tls-cert-file={pki / 'apiserver.crt'}",
        f"--tls-private-key-file={pki / 'apiserver.key'}",
        f"--client-ca-file={pki / 'ca.crt'}",
        f"--token-auth-file={state.layout.config / 'tokens.csv'}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-account-key-file={pki / 'service-account.key'}",
        f"--service-account-signing-key-file={pki / 'service-account.key'}",
        f"--service-cluster-ip-range={SERVICE_NETWORK}",
        "--allow-privileged=true",
        f"--cert-dir={state.layout.run / 'apiserver'}",
    ]
    if state.full:
        command += [
            f"--kubelet-certificate-authority={pki / 'ca.crt'}",
            f"--kubelet-client-certificate={pki / 'apiserver-kubelet.crt'}",
            f"--kubelet-client-key={pki / 'apiserver-kubelet.key'}",
            "--kubelet-preferred-address-types=InternalIP",
        ]
    else:
        # An endpoint may not be a loopback address, so nobody keeps that of the API server.
        command.append("--endpoint-reconciler-type=none")
    return Component(command, trouble=lambda: _api_trouble(state), stop_seconds=20)


def _api_trouble(state: State) -> str | None:
    try:
        api.request(state, "GET", "/readyz", timeout_seconds=3)
    except api.ApiError as error:
        return str(error)
    return None


def _controller_manager(state: State) -> Component:
    pki = state.layout.pki
    kubeconfig = state.layout.config / "controller-manager.kubeconfig"
    command = [
        _program("kube-controller-manager"),
        f"--kubeconfig={kubeconfig}",
        f"--bind-address={state.address}",
        f"--secure-port={state.ports['controller-manager']}",
        f"--service-account-private-key-file={pki / 'service-account.key'}",
        f"--root-ca-file={pki / 'ca.crt'}",
        f"--cluster-signing-cert-file={pki / 'ca.crt'}",
        f"--cluster-signing-key-file={pki / 'ca.key'}",
        "--use-service-account-credentials=true",
        # It makes an account for each of its controllers first; the default rate takes seconds.
        "--kube-api-qps=500",
        "--kube-api-burst=1000",
        "--leader-elect=false",
    ]
    url = state.url("controller-manager") + "/healthz"
    return Component(command, trouble=lambda: api.probe(url))


def _scheduler(state: State) -> Component:
    command = [
        _program("kube-scheduler"),
        f"--kubeconfig={state.layout.config / 'scheduler.kubeconfig'}",
        f"--bind-address={state.address}",
        f"--secure-port={state.ports['scheduler']}",
        # A benchmark has it place more pods a second than the default rate allows.
        "--kube-api-qps=500",
        "--kube-api-burst=1000",
        "--leader-elect=false",
    ]
    url = state.url("scheduler") + "/healthz"
    return Component(command, trouble=lambda: api.probe(url))


def _versitygw(state: State) -> Component:
    command = [
        _program("versitygw"),
        f"--port={state.address}:{state.ports['s3']}",
        "--region=us-east-1",
        "--health=/health",
        "posix",
        str(state.layout.buckets),
    ]
    # By the environment: arguments can be read by every user of the machine.
    credentials = {
        "ROOT_ACCESS_KEY": state.s3_access_key,
        "ROOT_SECRET_KEY": state.s3_secret_key,
    }
    url = state.url("s3", "http") + "/health"
    return Component(command, trouble=lambda: api.probe(url), environment=credentials)


def _registry(state: State) -> Component:
    command = ["/usr/bin/docker-registry", "serve", str(state.layout.config / "registry.yaml")]
    url = state.url("registry", "http") + "/v2/"
    return Component(command, trouble=lambda: api.probe(url))


def _containerd(state: State) -> Component:
    # It looks for its shim and the plugins for iptables in the search path.
    path = f"{binaries()}:/usr/sbin:/usr/bin:/sbin:/bin"
    command = [
        _program("containerd"),
        f"--config={state.layout.config / 'containerd.toml'}",
        "--log-level=warn",
    ]
    return Component(command, trouble=lambda: _containerd_trouble(state), environment={"PATH": path})


def _containerd_trouble(state: State) -> str | None:
    try:
        ctr(state, "version")
    except ClusterError as error:
        return str(error)
    return None


def ctr(state: State, *arguments: str, check: bool = True, timeout_seconds: float = 20) -> str:
    """The output of containerd's own client, in the kubelet's namespace of containerd."""
    socket: Path = state.layout.containerd_socket
    return run(
        [_program("ctr"), "--address", str(socket), "--namespace", "k8s.io", *arguments],
        check=check,
        timeout_seconds=timeout_seconds,
    )


def _kubelet(state: State) -> Component:
    layout = state.layout
    command = [
        _program("kubelet"),
        f"--config={layout.config / 'kubelet.yaml'}",
        f"--kubeconfig={layout.config / 'node.kubeconfig'}",
        f"--root-dir={layout.run / 'kubelet'}",
        f"--cert-dir={layout.run / 'kubelet' / 'pki'}",
        f"--hostname-override={state.node}",
        f"--node-ip={state.address}",
    ]
    url = state.url("kubelet-health", "http") + "/healthz"
    # A kubelet that has ended leaves its pods running, as it should at a restart.
    return Component(command, trouble=lambda: api.probe(url))


def _proxy(state: State) -> Component:
    command = [
        _program("kube-proxy"),
        f"--kubeconfig={state.layout.config / 'proxy.kubeconfig'}",
        "--proxy-mode=iptables",
        f"--cluster-cidr={POD_NETWORK}",
        f"--hostname-override={state.node}",
        f"--healthz-bind-address={state.address}:{state.ports['proxy-health']}",
        # These are settings of the whole machine, not of the namespace.
        "--conntrack-max-per-core=0",
    ]
    url = state.url("proxy-health", "http") + "/healthz"
    return Component(command, trouble=lambda: api.probe(url))


def _dns(state: State) -> Component:
    command = [_program("coredns"), "-conf", str(state.layout.config / "Corefile")]
    url = state.url("dns-health", "http") + "/health"
    return Component(command, trouble=lambda: api.probe(url))


_BUILDERS: dict[str, Callable[[State], Component]] = {
    "etcd": _etcd,
    "apiserver": _apiserver,
    "controller-manager": _controller_manager,
    "scheduler": _scheduler,
    "versitygw": _versitygw,
    "registry": _registry,
    "containerd": _containerd,
    "kubelet": _kubelet,
    "proxy": _proxy,
    "dns": _dns,
}
