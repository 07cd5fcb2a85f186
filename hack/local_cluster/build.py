"""Builds the cluster's programs from their pinned Go modules into the cache.

Every program lies in ``$FINETUNE_CACHE/build/<name>-<key>``, where the key changes with
the version and the sources, and is linked from ``$FINETUNE_CACHE/bin``.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from . import layout
from .layout import ClusterError, binaries, cache
from .state import locked

_VERSION_PACKAGE = "k8s.io/component-base/version"


@dataclass(frozen=True)
class Header:
    """A C header that a module needs and does not bring: a file of another module, and the path it is included by."""

    module: str
    file: str
    path: str


@dataclass(frozen=True)
class Program:
    """One thing to build: a Go package of ours (``source``) or of a published module."""

    name: str
    version: str
    files: tuple[str, ...]
    packages: tuple[str, ...] = ()
    source: Path | None = None
    tags: str = ""
    ldflags: str = ""
    cgo: bool = False
    headers: tuple[Header, ...] = ()
    # Of the published module, and folders in it to keep beside the program: manifests to install it by.
    module: str = ""
    folders: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        # What has none of the later members keeps its key, and with it what was built.
        settings = (self.version, self.tags, self.ldflags, *filter(None, (self.headers, self.folders)))
        digest = hashlib.sha256(repr(settings).encode())
        if self.source is not None:
            for path in sorted(self.source.glob("*")):
                if path.suffix == ".go" or path.name in ("go.mod", "go.sum"):
                    digest.update(path.read_bytes())
        return f"{self.version}-{digest.hexdigest()[:10]}"

    @property
    def folder(self) -> Path:
        return cache() / "build" / f"{self.name}-{self.key}"


_MAJOR, _MINOR, _ = layout.KUBERNETES_VERSION.split(".")

CONTROL_PLANE = (
    Program(
        name="kubernetes",
        version=layout.KUBERNETES_VERSION,
        files=(
            "etcd",
            "kube-apiserver",
            "kube-controller-manager",
            "kube-proxy",
            "kube-scheduler",
            "kubectl",
            "kubelet",
        ),
        source=layout.SOURCE,
        # The components refuse each other without a version.
        ldflags=f"-X {_VERSION_PACKAGE}.gitVersion=v{layout.KUBERNETES_VERSION} "
        f"-X {_VERSION_PACKAGE}.gitMajor={_MAJOR} -X {_VERSION_PACKAGE}.gitMinor={_MINOR}",
    ),
    Program(
        name="versitygw",
        version=layout.VERSITYGW_VERSION,
        files=("versitygw",),
        packages=("github.com/versity/versitygw/cmd/versitygw",),
    ),
    Program(
        name="helm",
        version=layout.HELM_VERSION,
        files=("helm",),
        packages=("helm.sh/helm/v3/cmd/helm",),
    ),
)

NODE = (
    Program(
        name="containerd",
        version=layout.CONTAINERD_VERSION,
        files=("containerd", "containerd-shim-runc-v2", "ctr"),
        packages=tuple(
            f"github.com/containerd/containerd/v2/cmd/{command}"
            for command in ("containerd", "containerd-shim-runc-v2", "ctr")
        ),
    ),
    Program(
        name="runc",
        version=layout.RUNC_VERSION,
        files=("runc",),
        packages=("github.com/opencontainers/runc",),
        tags="seccomp",
        cgo=True,
    ),
    Program(
        name="coredns",
        version=layout.COREDNS_VERSION,
        files=("coredns",),
        packages=("github.com/coredns/coredns",),
    ),
    Program(
        name="pause",
        version="1",
        files=("pause",),
        source=layout.SOURCE / "pause",
    ),
)


# Third parties that only the interop tests start; the cluster does not need them.
INTEROP = (
    Program(
        name="ollama",
        version=layout.OLLAMA_VERSION,
        files=("ollama",),
        packages=("github.com/ollama/ollama",),
        cgo=True,
        # Published modules leave out folders named vendor, and Ollama keeps this header in one.
        headers=(
            Header(f"github.com/gen2brain/malgo@v{layout.MALGO_VERSION}", "miniaudio.h", "miniaudio/miniaudio.h"),
        ),
    ),
    Program(
        name="kueue",
        version=layout.KUEUE_VERSION,
        files=("kueue",),
        packages=("sigs.k8s.io/kueue/cmd/kueue",),
        module="sigs.k8s.io/kueue",
        folders=("config/components/crd/bases", "config/components/webhook"),
    ),
)

# Plays nodes and kubelets for the benchmark of the control plane.
BENCH = (
    Program(
        name="kwok",
        version=layout.KWOK_VERSION,
        files=("kwok",),
        packages=("sigs.k8s.io/kwok/cmd/kwok",),
    ),
)

GROUPS = {
    "control-plane": CONTROL_PLANE,
    "all": CONTROL_PLANE + NODE,
    "interop": INTEROP,
    "bench": BENCH,
    **{program.name: (program,) for program in INTEROP},
}


def build(group: str) -> None:
    """Builds what is missing of a group of `GROUPS` and prints each step with its time in seconds.

    Raises ClusterError if the Go toolchain is missing or a build fails.
    """
    programs = GROUPS[group]
    if all(_linked(program) for program in programs):
        return
    with locked(cache() / "build.lock"):
        for program in programs:
            if not program.folder.exists():
                started = time.monotonic()
                print(f"building {program.name} {program.version} ...", flush=True)
                _build(program)
                seconds = time.monotonic() - started
                print(f"built {program.name} in {seconds:.0f} s", flush=True)
            _link(program)


def go() -> str:
    """The path of the Go program. Raises ClusterError if there is none."""
    found = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if found is None:
        raise ClusterError("Go is not installed: run hack/prerequisites")
    return found


def _build(program: Program) -> None:
    parent = program.folder.parent
    parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{program.name}-", dir=parent))
    flags = ["-trimpath", "-buildvcs=false", "-ldflags", f"-s -w {program.ldflags}".strip()]
    if program.tags:
        flags += ["-tags", program.tags]
    environment = {**os.environ, "CGO_ENABLED": "1" if program.cgo else "0"}
    if program.headers:
        include = _headers(program, parent)
        environment |= dict.fromkeys(("CGO_CFLAGS", "CGO_CXXFLAGS"), f"-O2 -I{include}")
    if program.source is not None:
        command = [go(), "build", *flags, "-o", str(work / program.files[0]), "."]
        folder = program.source
    else:
        environment["GOBIN"] = str(work)
        packages = [f"{package}@v{program.version}" for package in program.packages]
        command = [go(), "install", *flags, *packages]
        # Outside any module, so that the published module's own pins count.
        folder = work
    try:
        result = subprocess.run(["nice", *command], cwd=folder, env=environment, check=False)
        if result.returncode != 0:
            raise ClusterError(
                f"building {program.name} failed: see the Go messages above "
                "(hack/prerequisites installs what the builds need)"
            )
        for name in program.folders:
            _copy(_module(f"{program.module}@v{program.version}", work) / name, work / name)
        for name in program.files[1:]:
            if not (work / name).exists():
                (work / name).symlink_to(program.files[0])
        work.chmod(0o755)
        work.rename(program.folder)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise


def _headers(program: Program, parent: Path) -> Path:
    """The folder to include from. Its path is always the same: it is part of what Go's build cache goes by."""
    folder = parent / f".{program.name}-include"
    for header in program.headers:
        target = folder / header.path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(_module(header.module, parent) / header.file, target)
    return folder


def _copy(source: Path, target: Path) -> None:
    # Not shutil.copytree: it would keep the modes of Go's module cache, where nothing can be deleted.
    for path in filter(Path.is_file, source.rglob("*")):
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)


def _module(module: str, folder: Path) -> Path:
    """The folder of a published module, downloaded from `folder`, which is outside any module like the build itself."""
    found = subprocess.run([go(), "mod", "download", "-json", module], cwd=folder, stdout=subprocess.PIPE, check=False)
    if found.returncode != 0:
        raise ClusterError(f"downloading {module} failed: see the Go messages above")
    return Path(json.loads(found.stdout)["Dir"])


def _linked(program: Program) -> bool:
    return all(
        (binaries() / name).exists() and (binaries() / name).readlink() == program.folder / name
        for name in program.files
    )


def _link(program: Program) -> None:
    binaries().mkdir(parents=True, exist_ok=True)
    for name in program.files:
        temporary = binaries() / f".{name}.new"
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(program.folder / name)
        temporary.replace(binaries() / name)
