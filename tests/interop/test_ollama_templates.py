"""Ollama renders conversations with the TEMPLATE of a Modelfile as the chat template that it stands for.

The model behind it only counts tokens: `_debug_render_only` returns the text that would be sent to it.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from finetune_api.plan import DatasetPlan
from finetune_trainer.data.rows.example import Message
from finetune_trainer.data.tokens import chat_template
from finetune_trainer.export.serving import modelfile as modelfiles
from finetune_trainer.prepare import template_choice
from local_platform.smollm2 import gguf
from tests.support.ollama_server import Ollama, serve
from tests.support.tokenizer_families import FAMILIES, Family

SYSTEM = "  너는 헬스 코치다.\n짧게 답해라. "
QUESTIONS = ("스쿼트는?", "몇 번?", "또?")
ANSWERS = ("천천히 하세요.", "열 번요.")
DATASET = DatasetPlan.model_validate(
    {"sources": [], "format": "Auto", "promptTemplate": "Auto", "minimumExamples": 50, "invalidRows": "Fail"}
    | {"holdoutPercent": 5}
)
ALPACA = Family("alpaca", FAMILIES[-1].load, ())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ollama]:
    with serve(tmp_path_factory.mktemp("ollama")) as found:
        (found.home / "model.gguf").symlink_to(gguf())
        yield found


def create(server: Ollama, made: modelfiles.Modelfile) -> None:
    path = server.home / "Modelfile"
    path.write_text(modelfiles.text(made, "model.gguf"), encoding="utf-8")
    server.create("probe", path)


def chat(server: Ollama, messages: Sequence[Message]) -> str:
    """The text that Ollama makes of a conversation."""
    body = {"model": "probe", "messages": list(messages), "stream": False, "_debug_render_only": True}
    text: str = server.post("/api/chat", body)["_debug_info"]["rendered_template"]
    return text


def conversation(system: str | None, questions: Sequence[str]) -> list[Message]:
    messages = chat_template.conversation(system, questions[0])
    for answer, question in zip(ANSWERS, questions[1:], strict=False):
        messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": question}]
    return messages


@pytest.mark.parametrize("system", [SYSTEM, None])
@pytest.mark.parametrize("family", [*FAMILIES, ALPACA], ids=lambda f: f.name)
def test_a_conversation_is_rendered_as_its_chat_template_does(
    server: Ollama, family: Family, system: str | None
) -> None:
    tokenizer = family.load()
    jinja = chat_template.ALPACA_JINJA
    if family is not ALPACA:
        dataset = DATASET.model_copy(update={"chat_template_kwargs": family.kwargs})
        jinja = template_choice.choose(dataset, tokenizer, None, family.name).jinja
    bos = tokenizer.bos_token if chat_template.adds_bos(tokenizer) else None

    def rendered(messages: Sequence[Message]) -> str:
        return chat_template.render(tokenizer, jinja, messages, generate=True)

    made = modelfiles.describe(rendered, bos, system, ["<|im_end|>"], 512)
    create(server, made)
    for count in range(1, 2 if made.one_question else 4):
        wanted = rendered(conversation(system, QUESTIONS[:count])).removeprefix(bos or "")
        # Ollama adds the system prompt of the Modelfile itself.
        assert chat(server, conversation(None, QUESTIONS[:count])) == wanted


@pytest.mark.parametrize("before", ["\u00a0", '"""\n', '"', " \n ", "👩\u200d🏫", "`{` }}"])
def test_any_text_of_a_template_arrives(server: Ollama, before: str) -> None:
    create(server, modelfiles.Modelfile(f"{before}{{{{ .Prompt }}}}>", None, (), 512))
    assert chat(server, conversation(None, ["네?"])) == f"{before}네?>"


@pytest.mark.parametrize("system", ["코치", "두 줄\n\t코치", 'Say "hi"', '"hi" he said', " a "])
def test_a_system_prompt_arrives(server: Ollama, system: str) -> None:
    create(server, modelfiles.Modelfile("[{{ .System }}]{{ .Prompt }}", system, ("<|im_end|>", "\n"), 512))
    assert chat(server, conversation(None, ["네?"])) == f"[{system}]네?"
    shown: dict[str, Any] = server.post("/api/show", {"model": "probe"})
    assert shown["system"] == system


def test_what_ollama_cannot_render_is_refused(server: Ollama, tmp_path: Path) -> None:
    path = tmp_path / "Modelfile"
    path.write_text(modelfiles.text(modelfiles.Modelfile(None, None, (), 512), "model.gguf"))
    done = server.try_to_create("refused", path)
    assert done.returncode != 0
    assert "FROM" in done.stderr
