"""A result in a real Ollama: the files of export are all that it gets."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.served import GGUFS, LEARNED, QUESTION, SYSTEM, Served, messages
from tests.support.ollama_server import Ollama, serve


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


@pytest.mark.parametrize("name", GGUFS)
def test_it_answers_as_trained_and_stops(ollama: Ollama, name: str) -> None:
    found = ask(ollama, name)
    assert found["response"].strip() == LEARNED
    assert found["done_reason"] == "stop"


@pytest.mark.parametrize("name", GGUFS)
def test_its_prompt_is_the_trained_one_token_by_token(ollama: Ollama, served: Served, name: str) -> None:
    wanted = served.prompt_ids()
    assert ask(ollama, name)["context"][: len(wanted)] == wanted


def test_chat_answers_as_trained(ollama: Ollama) -> None:
    asked = messages()[1:]
    body = {"model": "coach-q8_0", "messages": asked, "stream": False, "options": {"temperature": 0}}
    found = ollama.post("/api/chat", body)
    assert found["message"]["content"].strip() == LEARNED
    assert found["prompt_eval_count"] == ask(ollama, "Q8_0")["prompt_eval_count"]


def test_it_knows_system_prompt_stops_and_context_length(ollama: Ollama) -> None:
    found = ollama.post("/api/show", {"model": "coach-q8_0"})
    assert found["system"] == SYSTEM
    parameters = [line.split(maxsplit=1) for line in found["parameters"].splitlines()]
    assert ["num_ctx", "256"] in parameters
    assert ["stop", '"<|im_end|>"'] in parameters
