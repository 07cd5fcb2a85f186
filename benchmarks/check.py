#!/usr/bin/env python3
"""How fast dataset files are checked, and in how much memory: `prepare --check` over rows of 1 KB.

    python benchmarks/check.py --work /tmp/benchmark                 # 1,000,000 rows, 1 GB
    python benchmarks/check.py --work /tmp/benchmark --rows 20000

Needs no network. The rows are Korean text made of random words, a tenth with a copy, a near copy, a number or something
else that a check finds; they are kept in --work for the next run. Memory is the sum over all processes, each page
counted once (PSS, from /proc), so that it only runs on Linux.
"""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Promised for 1,000,000 rows of 1 KB on two cores.
PROMISED_SECONDS = 180.0
PROMISED_MIB = 1536.0
PROMISED_ROWS = 1_000_000
_SEED = 3407
_WORDS = 20_000
_WORDS_OF_PROMPT, _WORDS_OF_ANSWER = 12, 84
_POLL_SECONDS = 0.2


def main() -> int:
    """Make the file if it is missing, check it and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for the file")
    parser.add_argument("--rows", type=int, default=PROMISED_ROWS)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    data = options.work / f"check-{options.rows}.jsonl"
    if not data.exists():
        write_rows(data, options.rows)
    seconds, cpu_seconds, peak = measure(data)
    share = options.rows / PROMISED_ROWS
    figures = {
        "rows": options.rows,
        "bytes": data.stat().st_size,
        "seconds": round(seconds, 1),
        "cpuSeconds": round(cpu_seconds, 1),
        "microsecondsPerRow": round(seconds / options.rows * 1e6, 1),
        "peakMiB": round(peak),
    }
    print(json.dumps(figures, indent=1))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0 if seconds <= PROMISED_SECONDS * share and peak <= PROMISED_MIB else 1


def write_rows(path: Path, count: int) -> None:
    """Write `count` Alpaca rows of about 1 KB."""
    rng = random.Random(_SEED)  # noqa: S311 - no secret
    words = ["".join(chr(rng.randint(0xAC00, 0xD7A3)) for _ in range(rng.randint(2, 4))) for _ in range(_WORDS)]
    partial = path.with_suffix(".partial")
    before = {"instruction": "", "output": ""}
    with partial.open("w", encoding="utf-8") as file:
        for number in range(count):
            row = {
                "instruction": " ".join(rng.choices(words, k=_WORDS_OF_PROMPT)) + "?",
                "output": " ".join(rng.choices(words, k=_WORDS_OF_ANSWER)) + ".",
            }
            kind = number % 50
            if kind == 1:
                row = before
            elif kind == 11:
                row = before | {"output": before["output"].replace(words[0], words[1])[:-1] + "!"}
            elif kind == 21:
                row["output"] += f" {rng.randint(1, 10**6)} 010-{rng.randint(2000, 9999)}-{rng.randint(1000, 9999)}"
            elif kind == 31:
                row["instruction"] = before["instruction"]
            elif kind == 41:
                row["output"] = "죄송하지만 도와드릴 수 없습니다. " + row["output"]
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            before = row
    partial.rename(path)


def measure(data: Path) -> tuple[float, float, float]:
    """Return the seconds that the check took, those of all its processors, and the most memory that it held, in MiB."""
    command = [sys.executable, "-m", "finetune_trainer", "prepare", "--check", str(data)]
    path = os.pathsep.join(str(ROOT / part) for part in ("crds", "trainer-image"))
    started = time.monotonic()
    peak = 0
    with subprocess.Popen(command, env=os.environ | {"PYTHONPATH": path}, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            peak = max(peak, sum(map(_held_kib, _family(process.pid))))
            time.sleep(_POLL_SECONDS)
    seconds = time.monotonic() - started
    if process.returncode:
        raise SystemExit(f"the check ended with {process.returncode}")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, used.ru_utime + used.ru_stime, peak / 1024


def _family(pid: int) -> list[int]:
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
        children = [int(child) for thread in threads for child in (thread / "children").read_text().split()]
    except OSError:
        return [pid]
    return [pid, *(member for child in children for member in _family(child))]


def _held_kib(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


if __name__ == "__main__":
    sys.exit(main())
