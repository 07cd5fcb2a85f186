"""The parts of an export: uploads in the background, records, the kept scratch folder, progress, advice."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from finetune_api.layout import JobLayout
from finetune_api.spec import GGUFType, MergeBase
from finetune_trainer.errors import UnavailableError
from finetune_trainer.export.background_upload import Uploader
from finetune_trainer.export.parity.rejected import advice
from finetune_trainer.export.records import ExportState, Made
from finetune_trainer.export.work_folder import kept_folder
from finetune_trainer.progress.stage_clock import StageClock
from finetune_trainer.storage.folder import FileStore
from finetune_trainer.storage.store import Progress

LAYOUT = JobLayout("gym", "coach", "1")
MADE = Made(run_id="a" * 64, adapter_sha256="b" * 64, trainer="c")


def test_the_caller_continues_while_a_file_is_uploaded() -> None:
    free = threading.Event()
    with Uploader(lambda percent: None) as uploader:
        uploader.start(1, lambda progress: assert_set(free))
        free.set()


def assert_set(event: threading.Event) -> None:
    assert event.wait(60)


def test_a_second_file_waits_for_the_first() -> None:
    order: list[str] = []
    free = threading.Event()

    def first(progress: Progress) -> None:
        assert_set(free)
        order.append("first")

    with Uploader(lambda percent: free.set()) as uploader:
        uploader.start(1, first)
        uploader.start(1, lambda progress: order.append("second"))
    assert order == ["first", "second"]


def test_waiting_tells_how_far_the_upload_is() -> None:
    shown: list[int] = []
    free = threading.Event()

    def show(percent: int) -> None:
        shown.append(percent)
        free.set()

    def upload(progress: Progress) -> None:
        progress(30)
        assert_set(free)

    with Uploader(show) as uploader:
        uploader.start(100, upload)
        uploader.wait()
    assert shown[0] == 30


def fail(progress: Progress) -> None:
    raise UnavailableError("away")


def test_an_upload_s_own_error_is_raised() -> None:
    with pytest.raises(UnavailableError, match="away"), Uploader(lambda percent: None) as uploader:
        uploader.start(1, fail)


def test_an_upload_is_given_up_where_the_stage_fails() -> None:
    begun, ended = threading.Event(), threading.Event()

    def endless(progress: Progress) -> None:
        try:
            while True:
                progress(1)
                begun.set()
        finally:
            ended.set()

    def fail_meanwhile() -> None:
        with Uploader(lambda percent: None) as uploader:
            uploader.start(1, endless)
            assert_set(begun)
            raise KeyError

    with pytest.raises(KeyError):
        fail_meanwhile()
    assert ended.is_set()


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "store")


def state(store: FileStore, made: Made = MADE) -> ExportState:
    return ExportState(store, LAYOUT, "gym/coach/run", made)


def kept(store: FileStore) -> None:
    store.put_bytes("gym/coach/run/gguf/x.gguf", b"12345")
    state(store).keep("Q8_0", "gguf/x.gguf", 5, "d" * 64)


def test_a_recorded_file_is_found_by_the_next_attempt(store: FileStore) -> None:
    kept(store)
    record = state(store).find("Q8_0")
    assert record is not None
    assert (record.path, record.sha256) == ("gguf/x.gguf", "d" * 64)


@pytest.mark.parametrize("content", [None, b"1234"])
def test_a_record_without_its_file_does_not_count(store: FileStore, content: bytes | None) -> None:
    kept(store)
    store.delete("gym/coach/run/gguf/x.gguf")
    if content is not None:
        store.put_bytes("gym/coach/run/gguf/x.gguf", content)
    assert state(store).find("Q8_0") is None


@pytest.mark.parametrize("change", [{"run_id": "e" * 64}, {"adapter_sha256": "e" * 64}, {"trainer": "e"}])
def test_a_file_of_other_settings_does_not_count(store: FileStore, change: dict[str, str]) -> None:
    kept(store)
    assert state(store, MADE.model_copy(update=change)).find("Q8_0") is None


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b'{"made": 1}'])
def test_a_damaged_record_does_not_count(store: FileStore, content: bytes) -> None:
    kept(store)
    store.put_bytes(LAYOUT.exported("Q8_0"), content)
    assert state(store).find("Q8_0") is None


def test_a_forgotten_record_is_gone(store: FileStore) -> None:
    kept(store)
    state(store).forget("Q8_0")
    assert state(store).find("Q8_0") is None


def test_a_folder_is_removed_at_the_end(tmp_path: Path) -> None:
    with kept_folder(tmp_path / "private", "export-1", "a") as folder:
        (folder / "x").touch()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_was_made_from_something_else_is_removed(tmp_path: Path) -> None:
    (tmp_path / "export-1-old").mkdir()
    (tmp_path / "export-2-old").mkdir()
    with kept_folder(tmp_path / "private", "export-1", "a") as folder:
        assert {p.name for p in tmp_path.iterdir()} == {folder.name, "export-2-old"}


def test_a_folder_in_use_is_left_alone(tmp_path: Path) -> None:
    private = tmp_path / "private"
    with kept_folder(private, "export-1", "a") as first, kept_folder(private, "export-1", "a") as second:
        assert (first != private, second) == (True, private)


def test_a_folder_of_something_else_in_use_is_left_alone(tmp_path: Path) -> None:
    private = tmp_path / "private"
    with kept_folder(private, "export-1", "a") as first:
        (first / "x").touch()
        with kept_folder(private, "export-1", "b"):
            assert (first / "x").exists()


_HOLD = """
import sys, time
from pathlib import Path
from finetune_trainer.export.work_folder import kept_folder
with kept_folder(Path(sys.argv[1]) / "private", "export-1", "a") as folder:
    (folder / "x").write_text("kept")
    print(folder, flush=True)
    time.sleep(600)
"""


def test_a_folder_outlives_a_killed_process(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(tmp_path)],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    with holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        holder.send_signal(signal.SIGKILL)
    with kept_folder(tmp_path / "private", "export-1", "a") as folder:
        assert (folder / "x").read_text() == "kept"


class Silent:
    """Keeps what is reported."""

    def __init__(self) -> None:
        self.reports: list[tuple[str, dict[str, object]]] = []

    def report(self, activity: str, **figures: object) -> None:
        self.reports.append((activity, figures))


def test_a_part_reports_how_far_it_is_and_no_time_left_of_the_stage() -> None:
    reporter = Silent()
    with StageClock(reporter).part("merge", "Merging") as advance:
        advance(25)
    assert reporter.reports == [("Merging", {}), ("Merging", {"percent": 25})]


def test_seconds_are_added_up_by_part() -> None:
    now = [0.0]
    clock = StageClock(Silent(), lambda: now[0])
    for seconds in (1.04, 2.0):
        with clock.part("prove", "Proving"):
            now[0] += seconds
    assert clock.timings == {"prove": 3.0}


@pytest.mark.parametrize(
    ("gguf_type", "trained_in_4bit", "merge_base", "advised"),
    [
        ("Q4_K_M", False, "Original", "Q8_0 or another type of more bits"),
        ("IQ2_M", True, "Original", "Q8_0 or another type of more bits"),
        ("F16", True, "Original", "set export.mergeBase to Trained"),
        ("F16", True, "Trained", "report this as a bug"),
        ("Q8_0", False, "Original", "report this as a bug"),
        (None, True, "Original", "leave out export.loraGGUF"),
    ],
)
def test_advice_is_something_that_can_help(
    gguf_type: GGUFType | None, trained_in_4bit: bool, merge_base: MergeBase, advised: str
) -> None:
    assert advised in advice(gguf_type, trained_in_4bit, merge_base)
