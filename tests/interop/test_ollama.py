"""A result in a real Ollama: the files of export are all that it gets."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.ollama_server import Ollama, serve
from tests.training.served import GGUFS, LEARNED, QUESTION, SYSTEM, Served, base_gguf, messages


@pytest.fixture(scope="session")
def ollama(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ollama]:
    """A server that has the result in every size."""
    with serve(tmp_path_factory.mktemp("ollama")) as server:
        for name in GGUFS:
            server.create(f"coach-{name.lower()}", served.run / "gguf" / f"Modelfile-{name}")
        yield server


def ask(ollama: Ollama, name: str, **more: Any) -> dict[str, Any]:
    body = {"model": f"coach-{name.lower()}", "prompt": QUESTION, "stream": False, "options": {"temperature": 0}}
    return ollama.post("/api/generate", body | more)


@pytest.fixture(scope="module")
def asked(ollama: Ollama) -> dict[str, dict[str, Any]]:
    """What each file says to the question, asked once."""
    return {name: ask(ollama, name) for name in GGUFS}


@pytest.mark.parametrize("name", GGUFS)
def test_it_answers_as_trained_and_stops(asked: dict[str, dict[str, Any]], name: str) -> None:
    assert asked[name]["response"].strip() == LEARNED
    assert asked[name]["done_reason"] == "stop"


@pytest.mark.parametrize("name", GGUFS)
def test_its_prompt_is_the_trained_one_token_by_token(
    asked: dict[str, dict[str, Any]], served: Served, name: str
) -> None:
    wanted = served.prompt_ids()
    assert asked[name]["context"][: len(wanted)] == wanted


def test_chat_answers_as_trained(ollama: Ollama, asked: dict[str, dict[str, Any]]) -> None:
    body = {"model": "coach-q8_0", "messages": messages()[1:], "stream": False, "options": {"temperature": 0}}
    found = ollama.post("/api/chat", body)
    assert found["message"]["content"].strip() == LEARNED
    assert found["prompt_eval_count"] == asked["Q8_0"]["prompt_eval_count"]


def test_it_knows_system_prompt_stops_and_context_length(ollama: Ollama) -> None:
    found = ollama.post("/api/show", {"model": "coach-q8_0"})
    assert found["system"] == SYSTEM
    parameters = [line.split(maxsplit=1) for line in found["parameters"].splitlines()]
    assert ["num_ctx", "256"] in parameters
    assert ["stop", '"<|im_end|>"'] in parameters


@pytest.fixture(scope="module")
def base(ollama: Ollama, served: Served, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a GGUF of the model that was trained and the adapter's own."""
    folder = tmp_path_factory.mktemp("base")
    (folder / "base.gguf").symlink_to(base_gguf())
    (folder / "LoRA.gguf").symlink_to(served.gguf("LoRA"))
    return folder


def create_on_base(ollama: Ollama, served: Served, base: Path, name: str, *lines: str) -> None:
    """Make a model of the exported Modelfile with another FROM."""
    _, rest = (served.run / "gguf/Modelfile-F16").read_text(encoding="utf-8").split("\n", 1)
    modelfile = base / f"Modelfile-{name}"
    modelfile.write_text("\n".join(["FROM ./base.gguf", *lines, rest]), encoding="utf-8")
    ollama.create(f"coach-{name}", modelfile)


def test_the_adapter_alone_answers_as_trained_beside_the_base(ollama: Ollama, served: Served, base: Path) -> None:
    create_on_base(ollama, served, base, "adapter", "ADAPTER ./LoRA.gguf")
    assert ask(ollama, "adapter")["response"].strip() == LEARNED


def test_the_base_answers_otherwise(ollama: Ollama, served: Served, base: Path) -> None:
    # The control: an answer that was there before training would prove nothing.
    create_on_base(ollama, served, base, "base")
    assert LEARNED not in ask(ollama, "base", options={"temperature": 0, "num_predict": 24})["response"]
