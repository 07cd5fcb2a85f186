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
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from . import layout
from .layout import ClusterError, binaries, cache
from .state import locked

_VERSION_PACKAGE = "k8s.io/component-base/version"
_FLAGS = ("-trimpath", "-buildvcs=false")


@dataclass(frozen=True)
class Header:
    """A C header that a module needs and does not bring: a file of another module, and the path it is included by."""

    module: str
    file: str
    path: str


@dataclass(frozen=True)
class Program:
    """What to build: a Go package, of our module where no version is given, else of a published one with its pins."""

    name: str
    files: tuple[str, ...]
    packages: tuple[str, ...]
    version: str = ""
    tags: str = ""
    cgo: bool = False
    headers: tuple[Header, ...] = ()
    # The path of the published module, and folders in it to keep beside the program: manifests to install it by.
    module: str = ""
    folders: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        # What has none of the last two members keeps its key, and with it what was built.
        settings = (self.version, self.tags, "", *filter(None, (self.headers, self.folders)))
        digest = hashlib.sha256(repr(settings).encode())
        if self.version:
            return f"{self.version}-{digest.hexdigest()[:10]}"
        digest.update(_LDFLAGS.encode())
        for path in sorted(layout.SOURCE.rglob("*")):
            if path.suffix == ".go" or path.name in ("go.mod", "go.sum"):
                digest.update(path.read_bytes())
        return digest.hexdigest()[:10]

    @property
    def folder(self) -> Path:
        return cache() / "build" / f"{self.name}-{self.key}"


_MAJOR, _MINOR, _ = layout.KUBERNETES_VERSION.split(".")
# The components refuse each other without a version.
_LDFLAGS = (
    f"-X {_VERSION_PACKAGE}.gitVersion=v{layout.KUBERNETES_VERSION} "
    f"-X {_VERSION_PACKAGE}.gitMajor={_MAJOR} -X {_VERSION_PACKAGE}.gitMinor={_MINOR}"
)

_CONTAINERD = "github.com/containerd/containerd/v2/cmd/"

CONTROL_PLANE = (
    Program(
        name="kubernetes",
        files=(
            "kubernetes",
            "etcd",
            "kube-apiserver",
            "kube-controller-manager",
            "kube-proxy",
            "kube-scheduler",
            "kubectl",
            "kubelet",
        ),
        packages=("./kubernetes",),
    ),
    Program(name="versitygw", files=("versitygw",), packages=("github.com/versity/versitygw/cmd/versitygw",)),
    Program(name="helm", files=("helm",), packages=("helm.sh/helm/v3/cmd/helm",)),
)

NODE = (
    Program(
        name="containerd",
        files=("containerd", "containerd-shim-runc-v2", "ctr"),
        packages=tuple(_CONTAINERD + command for command in ("containerd", "containerd-shim-runc-v2", "ctr")),
    ),
    Program(name="coredns", files=("coredns",), packages=("./coredns",)),
    Program(name="pause", files=("pause",), packages=("./pause",)),
    Program(
        name="runc",
        version=layout.RUNC_VERSION,
        files=("runc",),
        packages=("github.com/opencontainers/runc",),
        tags="seccomp",
        cgo=True,
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
        missing = [program for program in programs if not program.folder.exists()]
        # Ours share most of their packages: one command compiles each of these once, and keeps all CPUs busy.
        ours = [program for program in missing if not program.version]
        for together in filter(None, (ours, *([program] for program in missing if program.version))):
            names = ", ".join(program.name for program in together)
            started = time.monotonic()
            print(f"building {names} ...", flush=True)
            _build(together)
            print(f"built {names} in {time.monotonic() - started:.0f} s", flush=True)
        for program in programs:
            _link(program)


def go() -> str:
    """The path of the Go program. Raises ClusterError if there is none."""
    found = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if found is None:
        raise ClusterError("Go is not installed: run hack/prerequisites")
    return found


def _build(programs: Sequence[Program]) -> None:
    """Builds programs of our module together, or one of a published module."""
    parent = cache() / "build"
    parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=".build-", dir=parent))
    try:
        built = work / "bin"
        built.mkdir()
        if programs[0].version:
            _install(programs[0], built)
        else:
            packages = [package for program in programs for package in program.packages]
            # Debug information is stripped, so the compiler need not write it.
            flags = ["-ldflags", f"-s -w {_LDFLAGS}", "-gcflags=all=-dwarf=false"]
            _go(programs, ["build", *_FLAGS, *flags, "-o", str(built), *packages], layout.SOURCE, {})
        for program in programs:
            folder = work / program.name
            folder.mkdir()
            for name in program.folders:
                _copy(_module(f"{program.module}@v{program.version}", work) / name, folder / name)
            for name in program.files:
                # A program under several names does what the name says.
                if (built / name).exists():
                    (built / name).rename(folder / name)
                else:
                    (folder / name).symlink_to(program.files[0])
            folder.rename(program.folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _install(program: Program, folder: Path) -> None:
    flags = ["-ldflags", "-s -w", *(["-tags", program.tags] if program.tags else [])]
    packages = [f"{package}@v{program.version}" for package in program.packages]
    environment = {"GOBIN": str(folder)}
    if program.headers:
        include = _headers(program, cache() / "build")
        environment |= dict.fromkeys(("CGO_CFLAGS", "CGO_CXXFLAGS"), f"-O2 -I{include}")
    # Outside any module, so that the published module's own pins count.
    _go([program], ["install", *_FLAGS, *flags, *packages], folder, environment)


def _go(programs: Sequence[Program], arguments: list[str], folder: Path, environment: dict[str, str]) -> None:
    # The compiler's time is a tenth less when it collects its garbage later; the limit spares small machines.
    collector = {"GOGC": "400", "GOMEMLIMIT": "2GiB"}
    variables = os.environ | collector | {"CGO_ENABLED": "1" if programs[0].cgo else "0"} | environment
    if subprocess.run(["nice", go(), *arguments], cwd=folder, env=variables, check=False).returncode != 0:
        raise ClusterError(
            f"building {', '.join(program.name for program in programs)} failed: see the Go messages above "
            "(hack/prerequisites installs what the builds need)"
        )


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
