"""README's commands without a cluster do what they say, word by word: nothing is set that they do not set."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from local_cluster.layout import cache

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
# The job takes three minutes on two idle cores, and may share them.
pytestmark = [pytest.mark.training, pytest.mark.timeout(1800)]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a folder like a fresh checkout, in which results may be left."""
    for entry in ROOT.iterdir():
        (tmp_path / entry.name).symlink_to(entry)
    return tmp_path


def run(marker: str, checkout: Path) -> str:
    """Run the one block of the page with `marker` in it, as a user's shell does, and return what it prints."""
    [block] = [text for text in re.findall(r"(?ms)^```\w*\n(.*?)^```", README) if marker in text]
    variables = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block],
        cwd=checkout,
        env={**variables, "FINETUNE_CACHE": str(cache())},
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_data_is_checked_without_a_cluster_and_a_model(checkout: Path) -> None:
    assert "100" in run("prepare --check", checkout)


def test_a_job_ends_with_a_gguf_file_without_a_cluster(checkout: Path) -> None:
    run("finetune_trainer plan", checkout)
    [manifest] = (checkout / "out").rglob("manifest.json")
    files = {file["path"] for file in json.loads(manifest.read_text())["files"]}
    assert {"gguf/gym-coach-Q8_0.gguf", "gguf/Modelfile-Q8_0", "adapter/adapter_model.safetensors"} <= files
    assert (manifest.parent / "SERVE.md").is_file()
