"""Another trainer has another id, with or without an image."""

from collections.abc import Iterator
from pathlib import Path

import pytest

import finetune_trainer
from finetune_trainer.runtime import build_id as module
from finetune_trainer.runtime.build_id import build_id, package_versions


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("FINETUNE_BUILD_ID", raising=False)
    module.checksum.cache_clear()
    yield
    module.checksum.cache_clear()


def test_the_images_own_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINETUNE_BUILD_ID", "1234")
    assert build_id() == "1234"


def test_without_an_image_the_programs_files_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.py").write_text("1")
    monkeypatch.setattr(finetune_trainer, "__path__", [str(tmp_path)])
    first = build_id()
    module.checksum.cache_clear()
    assert build_id() == first
    module.checksum.cache_clear()
    (tmp_path / "a.py").write_text("2")
    assert build_id() != first


def test_without_an_image_the_libraries_count(monkeypatch: pytest.MonkeyPatch) -> None:
    first = build_id()
    module.checksum.cache_clear()
    monkeypatch.setattr(module, "package_versions", lambda: {"torch": "0"})
    assert build_id() != first


def test_versions_of_the_libraries_that_made_the_result() -> None:
    assert {"torch", "unsloth", "peft"} <= package_versions().keys()
