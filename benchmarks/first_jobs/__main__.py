"""First jobs that a newcomer would write, run on a small real model: no right file is rejected, and wrong ones are.

    python -m benchmarks.first_jobs --work /tmp/benchmark                        # all, five seeds: hours on a CPU
    python -m benchmarks.first_jobs --work /tmp/benchmark --seeds 1 few-steps    # one of them

Each job of this folder runs `python -m finetune_trainer plan, prepare, train, export`, as a pod does, on
SmolLM2-135M-Instruct with the rows of examples/coach.jsonl in the job's format. Then the base's own weights, half of
what was learned, its reverse and the adapter with its rows exchanged must each be told from the right merged model.
LLAMA_CPP_DIR is where llama.cpp's converters are; `hack/llama-cpp source` prints it.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from finetune_trainer.export import merge
from finetune_trainer.export.exact import merged_weights
from finetune_trainer.export.rejected_file import RejectedFile
from finetune_trainer.model.adapter import WEIGHTS
from finetune_trainer.sources.model_files import SINGLE
from local_platform.smollm2 import model_dir

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
STAGES = ("prepare", "train", "export")


@dataclass(frozen=True)
class Outcome:
    """One row of the table."""

    job: str
    seed: int
    verdict: str
    files: int
    rejected: list[str]
    # Wrong models that were not told from the right one.
    missed: list[str]
    seconds: int


def main() -> int:
    """Run the jobs and print a table; fail if a right file was rejected or a wrong one was not."""
    names = sorted(path.stem for path in HERE.glob("*.yaml"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("jobs", nargs="*", choices=[*names, []], default=[], help="left out: all")
    parser.add_argument("--work", type=Path, required=True, help="folder for data and results")
    parser.add_argument("--seeds", type=int, default=5, help="how many")
    parser.add_argument("--json", type=Path, help="write the table here too")
    options = parser.parse_args()
    found = []
    print("| job | seed | verdict | files | rejected | wrong models missed | s |\n|---|---|---|---|---|---|---|")
    for name in options.jobs or names:
        for seed in range(1, options.seeds + 1):
            outcome = run(name, seed, options.work / f"{name}-{seed}")
            found.append(outcome)
            row = (name, seed, outcome.verdict, outcome.files, outcome.rejected or "", outcome.missed or "")
            print(f"| {' | '.join(map(str, row))} | {outcome.seconds} |", flush=True)
            if options.json:
                options.json.write_text(json.dumps([asdict(o) for o in found], indent=1) + "\n")
    return 1 if any(outcome.rejected or outcome.missed for outcome in found) else 0


def run(name: str, seed: int, folder: Path) -> Outcome:
    """Run one job with one seed in an empty folder.

    Raises:
        RuntimeError: a stage failed; its output is in the folder.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    job = yaml.safe_load((HERE / f"{name}.yaml").read_text())
    job["spec"].setdefault("training", {})["seed"] = seed
    (folder / "job.yaml").write_text(yaml.safe_dump(job))
    data = write_rows(folder / "rows.jsonl", job["spec"]["dataset"].get("format", "Alpaca"))
    started = time.monotonic()
    plan = ["plan", "--job", "job.yaml", "--model", str(model_dir()), "--dataset", str(data)]
    (folder / "plan.json").write_text(_trainer(folder, [*plan, "--output", str(folder / "output"), "--allow-cpu"]))
    for stage in STAGES:
        _trainer(folder, [stage, "--plan", "plan.json"])
    (manifest,) = folder.glob("output/*/*/*/manifest.json")
    content = json.loads(manifest.read_text())
    files = [a for a in content["artifacts"] if a["type"] not in ("LoRAAdapter", "Modelfile")]
    outcome = Outcome(
        job=name,
        seed=seed,
        verdict=content["evaluation"]["verdict"],
        files=len(files),
        rejected=[f"{a['name']}: {a['rejected']}" for a in files if "rejected" in a],
        missed=[how for how in WRONG if not is_told(how, manifest.parent / "adapter", folder)],
        seconds=round(time.monotonic() - started),
    )
    shutil.rmtree(folder / "output")
    return outcome


def _trainer(folder: Path, arguments: list[str]) -> str:
    """Run the trainer and return what it prints to its standard output."""
    variables = {"PYTHONPATH": f"{ROOT}/crds:{ROOT}/trainer-image", "FINETUNE_TERMINATION_LOG": str(folder / "result")}
    with (folder / "log").open("ab") as log:
        done = subprocess.run(
            [sys.executable, "-m", "finetune_trainer", *arguments],
            cwd=folder,
            env=os.environ | variables | {"FINETUNE_SCRATCH": str(folder / "scratch")},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            check=False,
        )
    if done.returncode:
        raise RuntimeError(f"{arguments[0]} ended with {done.returncode}; see {folder}/log")
    return done.stdout


def write_rows(path: Path, format_name: str) -> Path:
    """Write the rows of the example in a format."""
    rows = [json.loads(line) for line in (ROOT / "examples/coach.jsonl").read_text().splitlines()]
    with path.open("w", encoding="utf-8") as file:
        for row in _FORMATS[format_name](rows):
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return path


Rows = list[dict[str, str]]


def _preferences(rows: Rows) -> Iterator[dict[str, Any]]:
    for row, other in zip(rows, rows[1:] + rows[:1], strict=True):
        yield {"prompt": row["instruction"], "chosen": row["output"], "rejected": other["output"]}


def _thumbs(rows: Rows) -> Iterator[dict[str, Any]]:
    for pair in _preferences(rows):
        yield {"prompt": pair["prompt"], "completion": pair["chosen"], "label": True}
        yield {"prompt": pair["prompt"], "completion": pair["rejected"], "label": False}


def _conversation(row: dict[str, str], names: tuple[str, str, str, str]) -> list[dict[str, str]]:
    who, what, user, assistant = names
    return [{who: user, what: row["instruction"]}, {who: assistant, what: row["output"]}]


_FORMATS: dict[str, Callable[[Rows], Any]] = {
    "Alpaca": lambda rows: rows,
    "Messages": lambda rows: [{"messages": _conversation(r, ("role", "content", "user", "assistant"))} for r in rows],
    "ShareGPT": lambda rows: [{"conversations": _conversation(r, ("from", "value", "human", "gpt"))} for r in rows],
    "PromptCompletion": lambda rows: [{"prompt": r["instruction"], "completion": r["output"]} for r in rows],
    "Text": lambda rows: [{"text": f"{r['instruction']}\n{r['output']}"} for r in rows],
    "Preference": _preferences,
    "Binary": _thumbs,
}


# What is wrong with the B matrices of an adapter.
WRONG: dict[str, Callable[[Any], Any] | None] = {
    "base": None,
    "halved": lambda tensor: tensor / 2,
    "exchanged rows": lambda tensor: tensor.roll(1, dims=0),
    "reversed": lambda tensor: -tensor,
}


def _ignore(percent: int) -> None:
    """Nobody looks."""


def is_told(how: str, adapter: Path, folder: Path) -> bool:
    """Return whether a model with another adapter, or none, is told from the right one."""
    from safetensors.torch import load_file, save_file

    change, merged = WRONG[how], folder / "wrong-merged"
    if change is None:
        merged.mkdir()
        base = load_file(model_dir() / SINGLE)
        save_file({n: t.half() for n, t in base.items()}, merged / SINGLE)
    else:
        wrong = folder / "wrong-adapter"
        shutil.copytree(adapter, wrong)
        tensors = load_file(adapter / WEIGHTS)
        save_file(
            {n: (change(t) if "lora_B" in n else t).contiguous() for n, t in tensors.items()}, folder / "wrong-weights"
        )
        (folder / "wrong-weights").replace(wrong / WEIGHTS)
        merge.merge(model_dir(), wrong, merged, None, None, _ignore)
        shutil.rmtree(wrong)
    try:
        merged_weights.check(model_dir(), adapter, merged, None, _ignore)
    except RejectedFile:
        return True
    finally:
        shutil.rmtree(merged)
    return False


if __name__ == "__main__":
    raise SystemExit(main())
