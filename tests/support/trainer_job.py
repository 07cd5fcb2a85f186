"""A small job for the trainer: a plan with local files, and the command line in this process."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finetune_api.job import FineTuneJob
from finetune_api.plan import Defaults, Plan
from finetune_api.render import render
from finetune_trainer.cli import main

JOB: dict[str, Any] = {
    "apiVersion": "finetune.dev/v1alpha1",
    "kind": "FineTuneJob",
    "metadata": {"name": "coach", "namespace": "gym", "uid": "11111111-2222"},
    "spec": {
        "model": {"huggingFace": {"repository": "org/model"}, "maxSequenceLength": 256},
        "dataset": {"sources": [{"name": "coach", "s3": {"uri": "s3://data/train.jsonl"}}]},
        "output": {"s3": {"uri": "s3://models/tuned"}},
    },
}


def alpaca_rows(count: int) -> list[dict[str, str]]:
    """Return valid rows, each with a question of its own."""
    return [{"instruction": f"{i}번 운동이 뭐야?", "input": "", "output": f"{i}번은 스쿼트야."} for i in range(count)]


def write_rows(path: Path, rows: list[Any]) -> Path:
    """Write JSON Lines."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


@dataclass
class TrainerJob:
    """Files of one job below `root`; a test changes `plan` or the files before it runs a stage."""

    root: Path
    plan: dict[str, Any]
    arguments: list[str] = field(default_factory=list)

    @property
    def dataset(self) -> Path:
        """The only source."""
        return self.root / "train.jsonl"

    @property
    def output(self) -> Path:
        """Where results are kept, unless the plan says otherwise."""
        return self.root / "output"

    @property
    def termination_log(self) -> Path:
        """What the kubelet would read."""
        return self.root / "termination-log"

    def result(self) -> dict[str, Any]:
        """Return the termination message."""
        found: dict[str, Any] = json.loads(self.termination_log.read_bytes())
        return found

    def run(self, stage: str) -> int:
        """Write the plan and run a stage in this process; FINETUNE_TERMINATION_LOG must name `termination_log`."""
        plan = self.root / "plan.json"
        if not plan.exists():
            plan.write_text(json.dumps(self.plan))
        return main([stage, "--plan", str(plan), *self.arguments])


def accepting_converter(folder: Path) -> Path:
    """Return a folder for LLAMA_CPP_DIR whose converter finds nothing wrong with any model, and takes no time."""
    folder.mkdir()
    (folder / "convert_hf_to_gguf.py").write_text("")
    return folder


def make(root: Path, model: Path, rows: list[Any] | None = None) -> TrainerJob:
    """Return a job that prepares without a fault."""
    plan: Plan = render(FineTuneJob.model_validate(JOB), Defaults(allow_cpu=True))
    content = plan.to_json()
    content["model"] = {k: v for k, v in content["model"].items() if k != "hub"} | {"path": str(model)}
    content["dataset"]["sources"] = [{"name": "coach", "path": str(root / "train.jsonl")}]
    content["output"] = {"path": str(root / "output")}
    job = TrainerJob(root, content)
    write_rows(job.dataset, alpaca_rows(60) if rows is None else rows)
    return job
