"""`prepare --check`: the report on a terminal and in a file, and how long it takes."""

import hashlib
import itertools
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from benchmarks import check as benchmark

from finetune_api.report import Report
from finetune_trainer.cli import main
from local_platform.smollm2 import model_dir
from tests.support.trainer_job import alpaca_rows, write_rows


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FINETUNE_SCRATCH", str(tmp_path / "scratch"))
    return write_rows(tmp_path / "coach.jsonl", [*alpaca_rows(120), *alpaca_rows(2), {"instruction": "a"}])


def _report(path: Path) -> Report:
    return Report.model_validate_json(path.read_bytes())


def test_report_on_the_terminal_is_the_one_in_the_file(data: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = data.parent / "report.json"
    assert main(["prepare", "--check", str(data), "--json", str(out)]) == 65
    found = _report(out).data
    assert found is not None
    assert (found.rows, found.examples, found.duplicates.exact) == (123, 120, 2)
    assert found.split is not None
    assert (found.split.train, found.split.holdout) == (100, 20)
    assert found.lengths is not None
    assert found.lengths.unit == "characters"
    printed = capfd.readouterr().out
    assert "123 rows, 120 used: 100 to train on, 20 held out\n" in printed
    assert "FAIL  InvalidRows: " in printed
    assert "DROP  ExactDuplicates: " in printed
    assert "not checked: give --tokenizer" in printed
    assert max(map(len, printed.splitlines())) <= 100


def test_with_a_tokenizer_tokens_are_counted_and_a_row_is_shown(data: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = data.parent / "report.json"
    main(["prepare", "--check", str(data), "--tokenizer", str(model_dir()), "--json", str(out)])
    found = _report(out).data
    assert found is not None
    assert found.not_checked == []
    assert found.lengths is not None
    assert found.lengths.unit == "tokens"
    assert found.sample is not None
    learned = [segment.text for segment in found.sample.segments if segment.learned]
    assert learned == ["0번은 스쿼트야.<|im_end|>"]
    assert "not checked" not in capfd.readouterr().out


def test_heavy_libraries_are_left_alone_without_a_tokenizer(data: Path) -> None:
    program = (
        "import sys\n"
        "from finetune_trainer.cli import main\n"
        "main(sys.argv[1:])\n"
        "print([m for m in ('torch', 'transformers', 'datasets', 'unsloth') if m in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "prepare", "--check", str(data)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        check=True,
        text=True,
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_help_explains_the_check(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["prepare", "--help"])
    printed = " ".join(capfd.readouterr().out.split())
    assert "Check dataset files without a plan, a model or a cluster" in printed


def _reading_seconds(data: Path, rows: int) -> float:
    """Return the CPU seconds that reading the rows and hashing each three words takes, by some of them."""
    some = 4_000
    with data.open(encoding="utf-8") as lines:
        began = time.process_time()
        for line in itertools.islice(lines, some):
            words = json.loads(line)["output"].split()
            for start in range(len(words)):
                hashlib.blake2b(" ".join(words[start : start + 3]).encode(), digest_size=8).digest()
        return (time.process_time() - began) * rows / some


def _cpu_seconds_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_a_million_rows_take_minutes_at_most(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A part of them. What counts are seconds of the CPU, in those that this machine takes for a third of the work."""
    rows = 20_000
    data = tmp_path / "rows.jsonl"
    benchmark.write_rows(data, rows)
    before, reading = _cpu_seconds_of_children(), _reading_seconds(data, rows)
    _, _, peak = benchmark.measure(data)
    cpu_seconds = _cpu_seconds_of_children() - before
    reading = max(reading, _reading_seconds(data, rows))
    with capsys.disabled():
        print(f"\n{rows} rows: {cpu_seconds:.1f} s of CPU, {cpu_seconds / reading:.1f} times reading, {peak:.0f} MiB")
    assert cpu_seconds <= 6 * reading
    assert peak <= benchmark.PROMISED_MIB


def test_every_kind_of_row_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINETUNE_SCRATCH", str(tmp_path / "scratch"))
    talk = [{"from": "human", "value": "{}번은?"}, {"from": "gpt", "value": "네, {}번이요."}]
    kinds: dict[str, Any] = {
        "ShareGPT": {"conversations": talk},
        "PromptCompletion": {"prompt": "{}번은?", "completion": "네, {}번이요."},
        "Text": {"text": "{}번은 스쿼트입니다."},
        "Preference": {"prompt": "{}번은?", "chosen": "네, {}번이요.", "rejected": "몰라요."},
        "Binary": {"prompt": "{}번은?", "completion": "네, {}번이요.", "label": True},
    }
    for name, row in kinds.items():
        spelled = json.dumps(row, ensure_ascii=False)
        data = write_rows(tmp_path / f"{name}.jsonl", [json.loads(spelled.replace("{}", str(i))) for i in range(120)])
        out = tmp_path / "report.json"
        options = ["--tokenizer", str(model_dir()), "--json", str(out)]
        assert main(["prepare", "--check", str(data), *options]) == 0, name
        found = _report(out).data
        assert found is not None
        assert [s.format for s in found.sources] == [name]
        assert found.checks == []
