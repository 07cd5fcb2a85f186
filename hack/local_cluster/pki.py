"""The cluster's certificates and its service-account key, made with the openssl program."""

from __future__ import annotations

from pathlib import Path

from .layout import KUBERNETES_VERSION
from .shell import run
from .state import State

_DAYS = "3650"
SERVICE_NETWORK = "10.96.0.0/16"
API_SERVICE_ADDRESS = "10.96.0.1"
DNS_SERVICE_ADDRESS = "10.96.0.10"


def create(state: State) -> None:
    """Makes whatever is missing; what exists is kept, since tokens and clients depend on it."""
    folder = state.layout.pki
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not (folder / "ca.crt").exists():
        _certificate(
            folder,
            "ca",
            subject=f"/CN=test-cluster-{state.name} (Kubernetes {KUBERNETES_VERSION})",
            extensions=[
                "basicConstraints=critical,CA:TRUE",
                "keyUsage=critical,keyCertSign,cRLSign",
            ],
            issuer=None,
        )
    api_names = [
        "DNS:kubernetes",
        "DNS:kubernetes.default",
        "DNS:kubernetes.default.svc",
        "DNS:kubernetes.default.svc.cluster.local",
        "DNS:localhost",
        f"IP:{API_SERVICE_ADDRESS}",
        "IP:127.0.0.1",
    ]
    if state.address != "127.0.0.1":
        api_names.append(f"IP:{state.address}")
    _leaf(folder, "apiserver", "/CN=kube-apiserver", "serverAuth", api_names)
    if state.full:
        _leaf(
            folder,
            "apiserver-kubelet",
            "/O=system:masters/CN=kube-apiserver-kubelet-client",
            "clientAuth",
            [],
        )
        _leaf(
            folder,
            "kubelet",
            f"/CN={state.node}",
            "serverAuth",
            [f"DNS:{state.node}", f"IP:{state.address}"],
        )
    service_account_key = folder / "service-account.key"
    if not service_account_key.exists():
        _openssl_key(service_account_key)


def _leaf(folder: Path, name: str, subject: str, usage: str, names: list[str]) -> None:
    if (folder / f"{name}.crt").exists():
        return
    extensions = [
        "basicConstraints=critical,CA:FALSE",
        "keyUsage=critical,digitalSignature",
        f"extendedKeyUsage={usage}",
        *([f"subjectAltName={','.join(names)}"] if names else []),
    ]
    _certificate(folder, name, subject=subject, extensions=extensions, issuer="ca")


def _certificate(folder: Path, name: str, *, subject: str, extensions: list[str], issuer: str | None) -> None:
    # Without a configuration of our own, the machine's openssl.cnf would add extensions.
    configuration = folder / f"{name}.cnf"
    configuration.write_text("[req]\ndistinguished_name=name\n[name]\n[extensions]\n" + "\n".join(extensions) + "\n")
    key = folder / f"{name}.key"
    _openssl_key(key)
    signer = ["-CA", str(folder / f"{issuer}.crt"), "-CAkey", str(folder / f"{issuer}.key")] if issuer else []
    # Written last and under its final name only when whole: its presence means "done".
    temporary = folder / f"{name}.crt.tmp"
    command = ["openssl", "req", "-x509", "-new", "-config", str(configuration)]
    command += ["-extensions", "extensions", "-key", str(key), "-subj", subject]
    run([*command, "-days", _DAYS, *signer, "-out", str(temporary)])
    temporary.replace(folder / f"{name}.crt")


def _openssl_key(path: Path) -> None:
    # Not `genpkey`: the API server reads the elder form of an EC key only.
    run(["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(path)])
    path.chmod(0o600)
