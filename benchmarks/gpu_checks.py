#!/usr/bin/env python3
"""What is claimed of GPUs, tried on one: methods, precisions, the memory ladder, and that interruptions change nothing.

    python benchmarks/gpu_checks.py --work /tmp/benchmark sft dpo kto orpo              # Llama 3 8B's shape
    python benchmarks/gpu_checks.py --work /tmp/benchmark fp16 ladder invariance        # four layers of Llama 3.2 1B
    python benchmarks/gpu_checks.py --work /tmp/benchmark processes nodes               # the same, on two GPUs
    python benchmarks/gpu_checks.py --work /tmp/benchmark two-gpus                      # Llama 3 8B's shape

Every case runs `python -m finetune_trainer prepare` and `train`, as a pod does, on models of random weights that are
made in --work. `ladder` lets another process fill the GPU first. `invariance` trains one job four times: with
micro-batches of 1, 2 and 8, and killed (SIGKILL) at a random step and started again. `processes` trains one job on one
GPU and on two, and kills and resumes a third; its last step is shorter than the others. `nodes` trains it on one GPU,
and as two pods with a GPU each would, but on one machine. `two-gpus` trains one job on one GPU and on two, to see how
much faster that is.
"""

import argparse
import copy
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import training

# A quarter of Llama 3.2 1B's layers: what is compared here does not depend on their number.
SMALL = training.SHAPES["llama-3-8b"] | {
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 4,
}
STEPS = 10
LADDER_MIB = 3000
FILLER = "import sys, time, torch; held = torch.empty(int(sys.argv[1]) << 20, dtype=torch.uint8, device='cuda'); "
FILLER += "print('held', flush=True); time.sleep(3600)"


def main() -> int:
    """Run the cases and print one JSON line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "cases",
        nargs="+",
        choices=["sft", "dpo", "orpo", "kto", "fp16", "ladder", "invariance", "processes", "nodes", "two-gpus"],
    )
    parser.add_argument("--work", type=Path, required=True, help="folder for models, data and results")
    parser.add_argument("--shape", choices=[*sorted(training.SHAPES), "small"], default="llama-3-8b")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    found: list[dict[str, Any]] = []
    for case in options.cases:
        started = time.monotonic()
        bench = Bench(options.work, case, options.shape)
        try:
            figures = bench.run()
        except subprocess.CalledProcessError as error:
            figures = {"failed": error.returncode, "command": error.cmd[2:5]}
        found.append({"case": case, **figures, "wallSeconds": round(time.monotonic() - started, 1)})
        print(json.dumps(found[-1]), flush=True)
        if options.json:
            options.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0


class Bench:
    """One case in a folder of its own."""

    def __init__(self, work: Path, case: str, shape: str) -> None:
        self.case = case
        self.work = work / case
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir()
        name = "small" if case in ("fp16", "ladder", "invariance", "processes", "nodes") else shape
        self.model = work / name
        if not (self.model / "config.json").exists():
            training.write_model(self.model, SMALL if name == "small" else training.SHAPES[name], training.vocabulary())

    def run(self) -> dict[str, Any]:
        """Return the figures of the case."""
        if self.case == "invariance":
            return self.invariance()
        if self.case == "processes":
            return self.processes()
        if self.case == "nodes":
            return self.nodes()
        if self.case == "two-gpus":
            return self.two_gpus()
        method = {"fp16": "SFT", "ladder": "SFT"}.get(self.case, self.case.upper())
        changes: dict[str, Any] = {"method": method}
        if self.case == "fp16":
            changes["precision"] = "FP16"
        if self.case != "ladder":
            return self.job("a", **changes).train()
        with filled(LADDER_MIB):
            return self.job("a", **changes, microBatchSize=8, gradientCheckpointing="None").train()

    def job(self, name: str, *, method: str = "SFT", **changes: Any) -> "Job":
        """Write data and plan, and run prepare."""
        data = self.work / f"{method}.jsonl"
        write_rows(data, method)
        return Job(self.work / name, self.model, data, method, changes)

    def invariance(self) -> dict[str, Any]:
        """Compare rows and losses of every step."""
        common: dict[str, Any] = {"gradientCheckpointing": "None", "checkpointSteps": 2}
        whole = self.job("whole", microBatchSize=8, **common)
        others = {"killed": whole.copied("killed", 8)}
        others |= {f"microBatch{size}": whole.copied(f"micro-{size}", size) for size in (1, 2)}
        figures: dict[str, Any] = {"effective": whole.train()["effective"]}
        at = random.randrange(3, STEPS - 1)  # noqa: S311
        others["killed"].train_until_step(at)
        figures["killedAfterStep"] = at
        for name, other in others.items():
            other.train()
            figures[name] = other.compared(whole)
        return figures

    def processes(self) -> dict[str, Any]:
        """Compare rows and losses of every step on one GPU and on two."""
        whole = self.job("whole", microBatchSize=2, checkpointSteps=2, maxSteps=None, epochs=1)
        others = {name: whole.copied(name, 2) for name in ("two", "killed")}
        figures: dict[str, Any] = {"one": whole.train()}
        others["killed"].processes = others["two"].processes = 2
        others["killed"].train_until_step(5)
        for name, other in others.items():
            figures[name] = other.train() | other.compared(whole)
        return figures

    def nodes(self) -> dict[str, Any]:
        """Compare rows and losses of every step on one GPU and in two pods, which talk as over a network."""
        whole = self.job("whole", microBatchSize=2, checkpointSteps=2, maxSteps=None, epochs=1)
        pods = whole.copied("pods", 2)
        pods.nodes = 2
        return {"one": whole.train(), "pods": pods.train() | pods.compared(whole)}

    def two_gpus(self) -> dict[str, Any]:
        """Compare the speed on one GPU and on two, of the same job; each has half of a step's rows."""
        one = self.job("one", microBatchSize=4, gradientCheckpointing="None")
        two = one.copied("two", 4)
        two.processes = 2
        figures = {"one": one.train(), "two": two.train() | two.compared(one)}
        figures["speedup"] = figures["two"]["tokensPerSecond"] / figures["one"]["tokensPerSecond"]
        return figures


class Job:
    """One plan, and the stages that run it."""

    def __init__(self, folder: Path, model: Path, data: Path, method: str, changes: dict[str, Any]) -> None:
        folder.mkdir()
        self.folder = folder
        self.processes = 1
        self.nodes = 1
        command = [sys.executable, "-m", "finetune_trainer", "plan", "--job", str(training.JOB), "--model", str(model)]
        command += ["--dataset", str(data), "--output", str(folder / "output"), "--allow-cpu"]
        done = subprocess.run(command, env=training.environment(), check=True, capture_output=True, text=True)
        plan = json.loads(done.stdout)
        plan["model"]["maxSequenceLength"] = 1024
        plan["dataset"]["format"] = plan["dataset"]["sources"][0]["format"] = "Auto"
        settings = plan["training"]
        settings.pop("microBatchSize", None)
        settings |= {"maxSteps": STEPS, "gradientCheckpointing": "Auto", "method": method} | changes
        if "checkpointSteps" in changes:
            settings.pop("checkpointSeconds", None)
        if method != "SFT":
            settings |= {"preference": {"beta": 0.1}, "learningRate": 5e-6}
        plan["evaluation"] = {"prompts": ["bada"], "maxNewTokens": 8}
        plan["export"] = {"gguf": []}
        self.plan = folder / "plan.json"
        self.plan.write_text(json.dumps(plan))
        subprocess.run(self._command("prepare"), env=self._environment(), check=True)

    def copied(self, name: str, micro_batch_size: int) -> "Job":
        """Return the prepared job in another folder: the micro-batch is no part of the run."""
        other = copy.copy(self)
        other.folder = self.folder.with_name(name)
        shutil.copytree(self.folder, other.folder)
        plan = json.loads(self.plan.read_text())
        plan["training"]["microBatchSize"] = micro_batch_size
        plan["output"]["path"] = str(other.folder / "output")
        other.plan = other.folder / "plan.json"
        other.plan.write_text(json.dumps(plan))
        return other

    def train(self) -> dict[str, Any]:
        """Run train to its end and return its figures."""
        started = time.monotonic()
        others = [
            subprocess.Popen(self._command("train", node), env=self._environment(node)) for node in range(1, self.nodes)
        ]
        subprocess.run(self._command("train"), env=self._environment(), check=True)
        assert [other.wait() for other in others] == [0] * len(others)
        (path,) = self.folder.glob("output/*/.runs/*/train.json")
        result = json.loads(path.read_text())
        lines = self.metrics()
        counted = [m for m in lines if m["seconds"]][3:]
        return {
            "effective": result["effective"],
            "memory": result.get("memory"),
            "evaluation": result["evaluation"],
            "lossFirst": lines[0]["loss"],
            "lossLast": lines[-1]["loss"],
            "lastStep": {k: v for k, v in lines[-1].items() if k.startswith("reward")},
            "tokensPerSecond": round(
                sum(m["supervisedTokens"] for m in counted) / max(sum(m["seconds"] for m in counted), 1e-9), 1
            ),
            "timings": result["timings"],
            "trainSeconds": round(time.monotonic() - started, 1),
        }

    def train_until_step(self, step: int) -> None:
        """Start train, and kill it with everything it started as soon as a checkpoint is complete after `step`."""
        process = subprocess.Popen(self._command("train"), env=self._environment(), start_new_session=True)
        while process.poll() is None:
            markers = self.folder.glob("output/*/.runs/*/checkpoints/*/complete.json")
            if any(int(m.parent.name) >= step - 1 for m in markers):
                break
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def compared(self, other: "Job") -> dict[str, Any]:
        """Return how the steps of two jobs differ."""
        mine, theirs = self.metrics(), other.metrics()
        return {
            "sameRows": [m["rows"] for m in mine] == [m["rows"] for m in theirs],
            "largestLossDifference": max(abs(a["loss"] - b["loss"]) for a, b in zip(mine, theirs, strict=True)),
        }

    def metrics(self) -> list[dict[str, Any]]:
        """Return one entry for each step."""
        (path,) = self.folder.glob("output/*/*/*/metrics.jsonl")
        return [json.loads(line) for line in path.read_text().splitlines()]

    def _command(self, stage: str, node: int = 0) -> list[str]:
        several: list[str] = []
        if stage == "train" and self.processes > 1:
            several = ["--processes", str(self.processes)]
        if stage == "train" and self.nodes > 1:
            several += ["--nodes", str(self.nodes), "--leader", "localhost", "--node", str(node)]
        return [sys.executable, "-m", "finetune_trainer", stage, "--plan", str(self.plan), *several]

    def _environment(self, node: int = 0) -> dict[str, str]:
        own = {"FINETUNE_SCRATCH": str(self.folder / f"scratch-{node}")}
        if self.nodes > 1:
            own["CUDA_VISIBLE_DEVICES"] = str(node)
        return training.environment() | own


def write_rows(path: Path, method: str) -> None:
    """Write 120 rows in the format of the method. Good answers are made of other words than bad ones."""
    generator = random.Random(training.SEED)  # noqa: S311
    words = training.vocabulary()
    half = len(words) // 2

    def text(some: list[str]) -> str:
        length = min(600, max(8, round(generator.lognormvariate(training.MEAN_LOG, training.SIGMA_LOG))))
        return " ".join(generator.choices(some, k=length))

    with path.open("w", encoding="utf-8") as file:
        for number in range(120):
            question = " ".join(generator.choices(words, k=12))
            good, bad = text(words[:half]), text(words[half:])
            row: dict[str, Any] = {"instruction": question, "input": "", "output": good}
            if method in ("DPO", "ORPO"):
                row = {"prompt": question, "chosen": good, "rejected": bad}
            elif method == "KTO":
                row = {"prompt": question, "completion": (bad, good)[number % 2], "label": bool(number % 2)}
            file.write(json.dumps(row) + "\n")


@contextmanager
def filled(left_mib: int) -> Iterator[None]:
    """Let another process hold all of the GPU's memory but `left_mib`."""
    import ctypes

    nvml = ctypes.CDLL("libnvidia-ml.so.1")
    nvml.nvmlInit_v2()
    handle = ctypes.c_void_p()
    nvml.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(handle))
    sizes = (ctypes.c_ulonglong * 3)()  # total, free, used, in bytes
    nvml.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(sizes))
    # What its own CUDA context takes is not known beforehand; some 600 MiB.
    held = (sizes[1] >> 20) - left_mib - 600
    process = subprocess.Popen([sys.executable, "-c", FILLER, str(held)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    sys.exit(main())
