"""One attempt of export in a process that can be killed. Imported by a fork server: the libraries are loaded once."""

import os
from pathlib import Path

import boto3
import llama_cpp
import torch
import transformers

from finetune_trainer import cli
from finetune_trainer.export import stage as export_stage
from local_platform.smollm2 import model_dir
from tests.support.export_job import QuickParts

# Loaded for who is forked; much of transformers is loaded only with the first tokenizer.
LOADED = (boto3, llama_cpp, torch, export_stage, transformers.AutoTokenizer.from_pretrained(model_dir()))


def attempt(plan: Path, number: int, variables: dict[str, str], seconds: float) -> None:
    """Run export with quick parts, each file written in `seconds`, and end this process with its exit code."""
    import pytest

    os.environ.update(variables)
    log = os.open(plan.parent / f"export-{number}.out", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    QuickParts(seconds=seconds).install(pytest.MonkeyPatch())
    os._exit(cli.main(["export", "--plan", str(plan), "--attempt", str(number)]))
