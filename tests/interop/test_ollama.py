"""A result in a real Ollama: the files of export are all that it gets."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import trainer_job
from tests.support.ollama_server import Ollama, serve
from tests.support.smollm2 import model_dir
from tests.training.conftest import Job, complete

SYSTEM = "너는 헬스 코치다."
# What every row answers, so that a short training shows.
LEARNED = "네, 오늘도 화이팅!"
QUESTION = "스쿼트는 어떻게 하나요?"
NAMES = ["Q4_K_M", "Q8_0"]


@pytest.fixture(scope="session")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A real model that learned one answer, exported."""
    root = tmp_path_factory.mktemp("ollama-job")
    rows = [{"instruction": f"{i}번째 운동은 어떻게 하나요?", "input": "", "output": LEARNED} for i in range(80)]
    plan = trainer_job.make(root, model_dir(), rows).plan
    complete(plan, 0.0, {"maxSteps": 16, "checkpointSteps": 16, "learningRate": 2e-3})
    plan["dataset"] |= {"systemPrompt": SYSTEM, "duplicates": "Keep"}
    plan["evaluation"] = {"prompts": [QUESTION], "maxNewTokens": 24}
    plan["export"] = {"gguf": NAMES}
    (root / "plan.json").write_text(json.dumps(plan))
    made = Job(root)
    for stage in ("prepare", "train", "export"):
        assert made.finish(stage) == 0, made.said(stage)
    return made


@pytest.fixture(scope="session")
def ollama(job: Job, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ollama]:
    """A server that has the result in both sizes."""
    with serve(tmp_path_factory.mktemp("ollama")) as server:
        for name in NAMES:
            server.create(f"coach-{name.lower()}", job.run / "gguf" / f"Modelfile-{name}")
        yield server


def ask(ollama: Ollama, name: str, **more: Any) -> dict[str, Any]:
    body = {"model": f"coach-{name.lower()}", "prompt": QUESTION, "stream": False, "options": {"temperature": 0}}
    return ollama.post("/api/generate", body | more)


def trained_prompt(job: Job) -> list[int]:
    """The ids that training begins this question with, by the tokenizer and the template beside the adapter."""
    from transformers import AutoTokenizer

    folder: Path = job.run / "adapter"
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    template = (folder / "chat_template.jinja").read_text(encoding="utf-8")
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": QUESTION}]
    text = tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False, add_generation_prompt=True)
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


@pytest.mark.parametrize("name", NAMES)
def test_it_answers_as_trained_and_stops(ollama: Ollama, name: str) -> None:
    found = ask(ollama, name)
    assert found["response"].strip() == LEARNED
    assert found["done_reason"] == "stop"


@pytest.mark.parametrize("name", NAMES)
def test_its_prompt_is_the_trained_one_token_by_token(ollama: Ollama, job: Job, name: str) -> None:
    wanted = trained_prompt(job)
    assert ask(ollama, name)["context"][: len(wanted)] == wanted


def test_chat_answers_as_trained(ollama: Ollama) -> None:
    messages = [{"role": "user", "content": QUESTION}]
    body = {"model": "coach-q8_0", "messages": messages, "stream": False, "options": {"temperature": 0}}
    found = ollama.post("/api/chat", body)
    assert found["message"]["content"].strip() == LEARNED
    assert found["prompt_eval_count"] == ask(ollama, "Q8_0")["prompt_eval_count"]


def test_it_knows_system_prompt_stops_and_context_length(ollama: Ollama) -> None:
    found = ollama.post("/api/show", {"model": "coach-q8_0"})
    assert found["system"] == SYSTEM
    parameters = [line.split(maxsplit=1) for line in found["parameters"].splitlines()]
    assert ["num_ctx", "256"] in parameters
    assert ["stop", '"<|im_end|>"'] in parameters


def test_the_base_answers_otherwise(job: Job) -> None:
    # The control: an answer that was there before training would prove nothing.
    (question,) = [
        q for q in json.loads((job.run / "answers.json").read_bytes())["questions"] if q["prompt"] == QUESTION
    ]
    assert LEARNED not in question["base"]
