import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
CHART = ROOT / "charts" / "finetune-operator"
KUBERNETES_VERSION = "1.36.0"

Manifest = dict[str, Any]
Render = Callable[..., list[Manifest]]


def run_helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    cache = os.environ.get("FINETUNE_CACHE") or str(Path.home() / ".cache" / "finetune-operator")
    path = f"{cache}/bin:{os.environ['PATH']}"
    return subprocess.run(
        ["helm", *arguments], text=True, capture_output=True, env={**os.environ, "PATH": path}, check=False
    )


def template(*arguments: str, chart: Path = CHART) -> subprocess.CompletedProcess[str]:
    return run_helm(
        "template", "rel", str(chart), "--namespace", "ops", "--kube-version", KUBERNETES_VERSION, *arguments
    )


@pytest.fixture
def render() -> Render:
    """A function from `helm template` arguments to the rendered objects."""

    def rendered(*arguments: str) -> list[Manifest]:
        done = template(*arguments)
        assert done.returncode == 0, done.stderr
        return [document for document in yaml.safe_load_all(done.stdout) if document]

    return rendered


def of_kind(manifests: list[Manifest], kind: str) -> list[Manifest]:
    return [m for m in manifests if m["kind"] == kind]
