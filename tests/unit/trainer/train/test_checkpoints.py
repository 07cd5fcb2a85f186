"""A checkpoint is whole or invisible, and only the run that wrote it sees it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from finetune_trainer.errors import UnavailableError
from finetune_trainer.storage.folder import FileStore
from finetune_trainer.train.checkpoints import MARKER, BackgroundUpload, Checkpoints, Marker

PREFIX = "team/.runs/uid/checkpoints"


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    return Checkpoints(FileStore(tmp_path / "store"), PREFIX, "run", "order")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "checkpoint-2"
    made.mkdir()
    (made / "adapter_model.safetensors").write_bytes(b"weights")
    (made / "optimizer.pt").write_bytes(b"optimizer")
    (made / "training_args.bin").write_bytes(b"a pickle")
    return made


def newest_step(checkpoints: Checkpoints) -> int | None:
    marker = checkpoints.newest()
    return marker.step if marker else None


def test_a_checkpoint_comes_back_as_it_was(checkpoints: Checkpoints, folder: Path, tmp_path: Path) -> None:
    checkpoints.upload(folder, 2)
    marker = checkpoints.newest()
    assert marker is not None
    assert checkpoints.download(marker, tmp_path / "back")
    assert {p.name: p.read_bytes() for p in (tmp_path / "back").iterdir()} == {
        "adapter_model.safetensors": b"weights",
        "optimizer.pt": b"optimizer",
    }


def test_without_its_marker_a_checkpoint_is_passed_over(checkpoints: Checkpoints, folder: Path) -> None:
    checkpoints.upload(folder, 2)
    checkpoints.upload(folder, 4)
    checkpoints.store.delete(f"{PREFIX}/4/{MARKER}")
    assert newest_step(checkpoints) == 2


@pytest.mark.parametrize("other", [{"run_id": "another"}, {"order_sha256": "another"}])
def test_a_checkpoint_of_another_run_is_invisible(
    checkpoints: Checkpoints, folder: Path, other: dict[str, str]
) -> None:
    replace(checkpoints, **other).upload(folder, 2)
    assert checkpoints.newest() is None


def test_a_changed_file_is_noticed(checkpoints: Checkpoints, folder: Path, tmp_path: Path) -> None:
    checkpoints.upload(folder, 2)
    checkpoints.store.put_bytes(f"{PREFIX}/2/optimizer.pt", b"0ptimizer")
    marker = checkpoints.newest()
    assert marker is not None
    assert not checkpoints.download(marker, tmp_path / "back")


def test_a_missing_file_is_noticed(checkpoints: Checkpoints, folder: Path, tmp_path: Path) -> None:
    checkpoints.upload(folder, 2)
    checkpoints.store.delete(f"{PREFIX}/2/optimizer.pt")
    marker = checkpoints.newest()
    assert marker is not None
    assert not checkpoints.download(marker, tmp_path / "back")


def test_a_marker_cannot_name_a_file_elsewhere(checkpoints: Checkpoints, folder: Path) -> None:
    checkpoints.upload(folder, 2)
    data = checkpoints.store.get_bytes(f"{PREFIX}/2/{MARKER}")
    assert data is not None
    marker = json.loads(data)
    marker["files"]["../../../escape"] = marker["files"].pop("optimizer.pt")
    checkpoints.store.put_bytes(f"{PREFIX}/2/{MARKER}", json.dumps(marker).encode())
    assert checkpoints.newest() is None


def test_the_newest_two_are_kept(checkpoints: Checkpoints, folder: Path) -> None:
    for step in (2, 4, 10):
        checkpoints.upload(folder, step)
    assert {o.key.split("/")[-2] for o in checkpoints.store.list(PREFIX)} == {"4", "10"}


def test_an_interrupted_upload_of_the_same_step_does_not_count(checkpoints: Checkpoints, folder: Path) -> None:
    class Broken(FileStore):
        def put_file(self, key: str, path: Path, progress: object = None) -> None:
            raise UnavailableError("gone")

    checkpoints.upload(folder, 2)
    broken = replace(checkpoints, store=Broken(Path(checkpoints.store.uri.removeprefix("file://"))))
    with pytest.raises(UnavailableError):
        broken.upload(folder, 2)
    assert checkpoints.newest() is None


def test_a_failed_upload_does_not_end_training(checkpoints: Checkpoints, folder: Path) -> None:
    class Broken(Checkpoints):
        def upload(self, folder: Path, step: int, best: int | None = None) -> None:
            raise UnavailableError("gone")

    upload = BackgroundUpload(Broken(checkpoints.store, PREFIX, "run", "order"), newest_step=2)
    upload.start(folder, 4)
    upload.wait()
    assert upload.newest_step == 2


def test_the_newest_step_moves_when_the_upload_is_whole(checkpoints: Checkpoints, folder: Path) -> None:
    upload = BackgroundUpload(checkpoints, newest_step=None)
    upload.start(folder, 4)
    upload.wait()
    assert (upload.newest_step, newest_step(checkpoints)) == (4, 4)


def test_a_marker_of_the_future_is_read(checkpoints: Checkpoints) -> None:
    data = {"step": 1, "runId": "run", "orderSha256": "order", "files": {}, "added": True}
    assert Marker.model_validate(data).step == 1


def test_the_best_checkpoint_stays(checkpoints: Checkpoints, folder: Path) -> None:
    for step in (2, 4, 6, 10):
        checkpoints.upload(folder, step, best=2)
    assert {o.key.split("/")[-2] for o in checkpoints.store.list(PREFIX)} == {"2", "6", "10"}


def test_one_file_of_a_checkpoint_comes_back(checkpoints: Checkpoints, folder: Path, tmp_path: Path) -> None:
    checkpoints.upload(folder, 2)
    assert checkpoints.download_file(2, "adapter_model.safetensors", tmp_path / "best")
    assert [p.read_bytes() for p in (tmp_path / "best").iterdir()] == [b"weights"]


@pytest.mark.parametrize(("step", "name"), [(4, "optimizer.pt"), (2, "scaler.pt")])
def test_a_file_that_no_checkpoint_has_is_said_to_be_missing(
    checkpoints: Checkpoints, folder: Path, tmp_path: Path, step: int, name: str
) -> None:
    checkpoints.upload(folder, 2)
    assert not checkpoints.download_file(step, name, tmp_path / "best")
