"""A training method is one file: `toy_method.patch` adds one, with a row of its own, to a copy of the tree.

The patch may touch the method's module, its line in the registry, the API that names it, and its own tests. Whatever
else has to know the method has to ask it. If the patch no longer applies, apply it by hand (`git apply --3way`), and
write it again with `git diff -U1`.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[4]
PATCH = Path(__file__).with_name("toy_method.patch")
METHODS = "trainer-image/finetune_trainer/methods"
OWN_TESTS = "tests/unit/trainer/methods/test_toy.py"
NEW = {f"{METHODS}/toy.py", OWN_TESTS}
# docs/architecture.md, "to add a training method", lists the same; `make generate` writes the rest of the API.
CHANGED = {f"{METHODS}/__init__.py", "crds/finetune_api/training_spec.py", "crds/finetune_api/dataset_spec.py"}
COPIED = ("crds", "trainer-image", "hack", "tests")


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def touched() -> dict[str, tuple[int, int]]:
    """Lines that the patch adds to and takes from each file."""
    lines = [line.split("\t") for line in git(ROOT, "apply", "--numstat", str(PATCH)).splitlines()]
    return {path: (int(added), int(removed)) for added, removed, path in lines}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """What the trainer's unit tests need."""
    for name in COPIED:
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_a_method_touches_its_own_files_the_registry_and_the_api(touched: dict[str, tuple[int, int]]) -> None:
    assert NEW <= touched.keys() <= NEW | CHANGED


def test_the_registry_gets_an_import_and_one_line(touched: dict[str, tuple[int, int]]) -> None:
    assert touched[f"{METHODS}/__init__.py"] == (2, 0)


def test_its_rows_go_from_the_file_to_the_score_through_code_that_does_not_know_it(tree: Path) -> None:
    git(tree, "apply", str(PATCH))
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "PYTHONPATH"))}
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"),
            *(OWN_TESTS, "tests/unit/trainer/methods/test_registry.py", "tests/unit/trainer/data/rows/test_formats.py"),
        ],
        cwd=tree,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
