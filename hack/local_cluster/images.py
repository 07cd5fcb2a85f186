"""Image files for containerd, and the way of images into the local registry."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import platform
import tarfile
from pathlib import Path

from .shell import run
from .state import State

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def write_archive(archive: Path, name: str, program: Path, target: str) -> None:
    """Writes an OCI archive of an image that holds nothing but one static program."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as content:
        entry = tarfile.TarInfo(target.lstrip("/"))
        entry.mode = 0o755
        binary = program.read_bytes()
        entry.size = len(binary)
        content.addfile(entry, io.BytesIO(binary))
    packed = gzip.compress(layer.getvalue(), mtime=0)
    machine = platform.machine()
    configuration = json.dumps(
        {
            "architecture": _ARCHITECTURES.get(machine, machine),
            "os": "linux",
            "config": {"Entrypoint": [target], "User": "65535:65535"},
            "rootfs": {"type": "layers", "diff_ids": [_digest(layer.getvalue())]},
        }
    ).encode()
    media = "application/vnd.oci.image"
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": f"{media}.manifest.v1+json",
            "config": _descriptor(f"{media}.config.v1+json", configuration),
            "layers": [_descriptor(f"{media}.layer.v1.tar+gzip", packed)],
        }
    ).encode()
    index = {
        "schemaVersion": 2,
        "manifests": [
            {
                **_descriptor(f"{media}.manifest.v1+json", manifest),
                "annotations": {"io.containerd.image.name": name},
            }
        ],
    }
    files = {
        "oci-layout": b'{"imageLayoutVersion": "1.0.0"}',
        "index.json": json.dumps(index).encode(),
        **{f"blobs/sha256/{hashlib.sha256(blob).hexdigest()}": blob for blob in (packed, configuration, manifest)},
    }
    with tarfile.open(archive, "w") as bundle:
        for path, blob in files.items():
            entry = tarfile.TarInfo(path)
            entry.size = len(blob)
            bundle.addfile(entry, io.BytesIO(blob))


def push(state: State, image: str, target: str | None) -> str:
    """Pushes an image to the cluster's registry and returns its name there.

    ``image`` is a name in buildah's storage or ``oci-archive:PATH``; ``target`` is a
    repository and tag. Only layers that the registry lacks are moved. Raises ClusterError.
    """
    archive = image.startswith("oci-archive:")
    if target is None:
        target = Path(image).stem if archive else _without_host(image)
    if archive:
        image = run(["buildah", "pull", "--quiet", image], timeout_seconds=1800).strip()
    reference = f"{state.registry}/{target}"
    # Half the time of gzip for our large layers, and containerd unpacks them faster too.
    compression = ["--compression-format", "zstd", "--compression-level", "1"]
    command = ["buildah", "push", "--quiet", "--tls-verify=false", *compression]
    run([*command, image, f"docker://{reference}"], timeout_seconds=1800)
    return reference


def _without_host(image: str) -> str:
    first, _, rest = image.partition("/")
    has_host = rest and ("." in first or ":" in first or first == "localhost")
    return rest if has_host else image


def _digest(blob: bytes) -> str:
    return f"sha256:{hashlib.sha256(blob).hexdigest()}"


def _descriptor(media_type: str, blob: bytes) -> dict[str, str | int]:
    return {"mediaType": media_type, "digest": _digest(blob), "size": len(blob)}
