"""A folder and a bucket behave alike, and survive what kills them."""

import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from finetune_api.plan import OutputPlan, S3Target
from finetune_trainer.errors import SettingsError, StageError
from finetune_trainer.storage.folder import FileStore
from finetune_trainer.storage.open import open_output, open_s3_object, override_output
from finetune_trainer.storage.s3 import S3Store
from finetune_trainer.storage.store import Store
from tests.support.s3_server import S3Server

LARGE = 100 * 1024 * 1024


def _target(s3: S3Server, tmp_path: Path, uri: str) -> S3Target:
    return S3Target(
        uri=uri,
        endpoint=s3.endpoint,
        force_path_style=True,
        credentials_dir=str(s3.credentials(tmp_path / "s3-keys")),
    )


@pytest.fixture(params=["folder", "bucket", "bucket root"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "folder":
        return FileStore(tmp_path / "store")
    s3: S3Server = request.getfixturevalue("s3")
    bucket = tmp_path.name.replace("_", "-").lower()
    s3.make_bucket(bucket)
    return S3Store(_target(s3, tmp_path, f"s3://{bucket}/{'' if request.param == 'bucket root' else 'a/b/'}"))


def test_bytes_come_back(store: Store) -> None:
    store.put_bytes("x/y.json", b"1")
    store.put_bytes("x/y.json", b"22")
    assert store.get_bytes("x/y.json") == b"22"


def test_a_listing_has_the_time_of_the_last_change(store: Store) -> None:
    before = datetime.now(UTC) - timedelta(seconds=2)  # S3 has whole seconds
    store.put_bytes("x/y.json", b"1")
    [found] = store.list("x")
    assert before <= found.modified <= datetime.now(UTC) + timedelta(seconds=2)


def test_what_is_not_there_is_none(store: Store, tmp_path: Path) -> None:
    assert store.get_bytes("x") is None
    assert store.list("x") == []
    with pytest.raises(FileNotFoundError):
        store.get_file("x", tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_files_come_back_with_progress(store: Store, tmp_path: Path) -> None:
    source, target, moved = tmp_path / "source", tmp_path / "target", []
    source.write_bytes(os.urandom(1000) * 70_000)  # more than one part
    store.put_file("x/large", source, moved.append)
    store.get_file("x/large", target, moved.append)
    assert target.read_bytes() == source.read_bytes()
    assert sum(moved) == 2 * source.stat().st_size


def test_list_and_delete_take_a_prefix_as_a_folder(store: Store) -> None:
    for key in ("step-1/a", "step-1/b/c", "step-10/a", "step-1.txt"):
        store.put_bytes(key, b"12")
    assert [(o.key, o.size_bytes) for o in store.list("step-1")] == [("step-1/a", 2), ("step-1/b/c", 2)]
    assert [o.key for o in store.list("step-10/a")] == ["step-10/a"]
    store.delete("step-1")
    assert [o.key for o in store.list("")] == ["step-1.txt", "step-10/a"]
    store.delete("step-1.txt")
    store.delete("step-1.txt")
    assert [o.key for o in store.list("")] == ["step-10/a"]


@pytest.mark.parametrize("key", ["../x", "a/../../x", "/x", "a\\b", "", "a\0b"])
def test_keys_that_climb_are_refused(store: Store, key: str) -> None:
    with pytest.raises(SettingsError, match="is refused"):
        store.put_bytes(key, b"")


def test_an_etag_tells_whether_the_bytes_changed(store: Store) -> None:
    store.put_bytes("x", b"1")
    first = store.list("x")[0].etag
    store.put_bytes("x", b"2")
    assert store.list("x")[0].etag != first


_PUT = """
import json, sys
from pathlib import Path
from finetune_api.plan import OutputPlan
from finetune_trainer.storage.open import open_output
store = open_output(OutputPlan.model_validate_json(sys.argv[1]))
def moved(count):
    print("moving", flush=True)
store.put_file("folder/large", Path(sys.argv[2]), moved)
"""


@pytest.mark.parametrize("kind", ["folder", "bucket"])
def test_a_writer_killed_in_the_middle_leaves_nothing(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if kind == "folder":
        output = OutputPlan(path=str(tmp_path / "store"))
    else:
        s3: S3Server = request.getfixturevalue("s3")
        s3.make_bucket("killed")
        output = OutputPlan(s3=_target(s3, tmp_path, "s3://killed/a"))
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(LARGE)
    writer = subprocess.Popen(
        [sys.executable, "-c", _PUT, output.model_dump_json(by_alias=True), str(large)],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    with writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        writer.send_signal(signal.SIGKILL)
    store = open_output(output)
    assert store.list("") == []
    store.put_bytes("folder/large", b"next attempt")
    assert store.get_bytes("folder/large") == b"next attempt"


def test_rotated_keys_are_used_at_once(s3: S3Server, tmp_path: Path) -> None:
    s3.make_bucket("rotated")
    target = _target(s3, tmp_path, "s3://rotated/a")
    store = S3Store(target)
    store.put_bytes("x", b"1")
    s3.credentials(tmp_path / "s3-keys", secret_key="wrong")
    with pytest.raises(StageError, match="refused to read"):
        store.get_bytes("x")
    s3.credentials(tmp_path / "s3-keys")
    assert store.get_bytes("x") == b"1"


def test_an_untrusted_certificate_is_reported(tmp_path: Path, https_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "AWS_ACCESS_KEY_ID").write_text("a")
    (tmp_path / "AWS_SECRET_ACCESS_KEY").write_text("b")
    endpoint = f"https://localhost:{https_port}"
    store = S3Store(
        S3Target(uri="s3://bucket/a", endpoint=endpoint, force_path_style=True, credentials_dir=str(tmp_path))
    )
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    with pytest.raises(StageError) as caught:
        store.get_bytes("x")
    assert (caught.value.exit_code, caught.value.message) == (
        69,
        f"the certificate of {endpoint} is not trusted; set caBundle to the ConfigMap with its authority",
    )
    # However often it tries.
    assert sum(slept) < 20


def test_object_uris_are_split() -> None:
    store, key = open_s3_object(S3Target(uri="s3://bucket/a/b.jsonl"))
    assert (store.uri, key) == ("s3://bucket/a", "b.jsonl")
    store, key = open_s3_object(S3Target(uri="s3://bucket/b.jsonl"))
    assert (store.uri, key) == ("s3://bucket", "b.jsonl")
    with pytest.raises(SettingsError, match="does not name an object"):
        open_s3_object(S3Target(uri="s3://bucket"))


def test_an_s3_output_keeps_the_plan_s_connection() -> None:
    plan = OutputPlan(s3=S3Target(uri="s3://a/b", endpoint="http://s3"))
    assert override_output(plan, "s3://c/d").s3 == S3Target(uri="s3://c/d", endpoint="http://s3")
    assert override_output(plan, "file:///tmp/a%20b") == OutputPlan(path="/tmp/a b")
