"""Checksums of a mounted model: computed once, and again only for what changed."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from finetune_api.layout import JobLayout
from finetune_trainer.sources import folder_model
from finetune_trainer.sources.folder_model import FolderModel
from finetune_trainer.sources.hash_cache import HashCache
from finetune_trainer.sources.model_files import Listing, is_needed
from finetune_trainer.sources.resolved import ModelFile
from finetune_trainer.storage.folder import FileStore
from tests.support.trainer_job import TrainerJob


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of the files that are read whole, of a folder that was written long ago."""
    names: list[str] = []
    original = folder_model.sha256_of

    def spy(path: Path) -> str:
        names.append(path.name)
        return original(path)

    monkeypatch.setattr(folder_model, "sha256_of", spy)
    monkeypatch.setattr(folder_model, "_SETTLED_NS", -(10**18))
    return names


@pytest.fixture
def folder(tiny: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny, tmp_path / "mounted")


def _cache(output: Path, folder: Path, namespace: str = "gym") -> HashCache:
    return HashCache(FileStore(output), JobLayout(namespace, "coach", "1"), folder)


def _listing(folder: Path, output: Path, reported: list[Any] | None = None) -> Listing:
    progress = (lambda *pair: reported.append(pair)) if reported is not None else (lambda *_: None)
    model = FolderModel(folder, progress, cache=_cache(output, folder))
    return model.identified(model.listing())


def test_a_listing_alone_reads_nothing(folder: Path, tmp_path: Path, read: list[str]) -> None:
    FolderModel(folder, lambda *_: None, cache=_cache(tmp_path / "out", folder)).listing()
    assert read == []


def test_second_job_reads_nothing(folder: Path, tmp_path: Path, read: list[str]) -> None:
    first = _listing(folder, tmp_path / "out")
    assert sorted(read) == sorted(f.path for f in first.files)
    read.clear()
    assert _listing(folder, tmp_path / "out") == first
    assert read == []


def test_only_the_changed_file_is_read_again(folder: Path, tmp_path: Path, read: list[str]) -> None:
    first = _listing(folder, tmp_path / "out")
    read.clear()
    os.utime(folder / "config.json")
    assert _listing(folder, tmp_path / "out").revision == first.revision
    assert read == ["config.json"]
    read.clear()
    _listing(folder, tmp_path / "out")
    assert read == []


def test_other_bytes_of_the_same_size_and_mtime_are_another_revision(
    folder: Path, tmp_path: Path, read: list[str]
) -> None:
    first = _listing(folder, tmp_path / "out")
    path = folder / "model.safetensors"
    before = path.stat()
    read.clear()
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert _listing(folder, tmp_path / "out").revision != first.revision
    assert read == ["model.safetensors"]


def test_file_that_was_written_just_now_is_not_trusted_later(
    folder: Path, tmp_path: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_model, "_SETTLED_NS", 3600 * 10**9)
    files = _listing(folder, tmp_path / "out").files
    assert {f.changed_ns for f in files} == {None}
    read.clear()
    _listing(folder, tmp_path / "out")
    assert len(read) == len(files)


def test_another_namespace_knows_nothing(folder: Path, tmp_path: Path, read: list[str]) -> None:
    files = _listing(folder, tmp_path / "out").files
    assert _cache(tmp_path / "out", folder, "other").get(files) == []


def test_damaged_object_is_replaced(folder: Path, tmp_path: Path, read: list[str]) -> None:
    first = _listing(folder, tmp_path / "out")
    (kept,) = (tmp_path / "out").glob("gym/.index/models/*.json")
    kept.write_text("{")
    read.clear()
    assert _listing(folder, tmp_path / "out") == first
    assert len(read) == len(first.files)
    assert kept.read_text() != "{"


def test_later_stage_trusts_what_prepare_pinned(folder: Path, tmp_path: Path, read: list[str]) -> None:
    pinned = _listing(folder, tmp_path / "out")
    read.clear()
    model = FolderModel(folder, lambda *_: None, known=pinned.files)
    assert model.identified(model.listing()) == pinned
    assert read == []


def test_progress_counts_the_bytes_that_are_read(folder: Path, tmp_path: Path, read: list[str]) -> None:
    reported: list[tuple[int, int]] = []
    files = _listing(folder, tmp_path / "out", reported).files
    total = sum(f.size_bytes for f in files)
    assert reported[-1] == (total, total)
    reported.clear()
    _listing(folder, tmp_path / "out", reported)
    assert reported == []


def test_second_job_of_a_changed_model_is_another_run(job: TrainerJob, folder: Path, read: list[str]) -> None:
    job.plan["model"]["path"] = str(folder)
    assert job.run("prepare") == 0
    first = job.result()["runId"]
    needed = [p for p in folder.iterdir() if is_needed(p.name)]
    assert len(read) == len(needed)
    read.clear()
    path = folder / "generation_config.json"
    path.write_text(path.read_text() + " ")
    assert job.run("prepare") == 0
    assert job.result()["runId"] != first


def test_file_of_an_older_run_has_no_time() -> None:
    assert ModelFile(path="a", size_bytes=1, identity="x").changed_ns is None
