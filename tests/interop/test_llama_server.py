"""llama-server renders conversations with its own Jinja as training did, and answers as trained."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from finetune_api.plan import DatasetPlan
from finetune_trainer.data.rows.example import Message
from finetune_trainer.data.tokens import chat_template
from finetune_trainer.export.gguf import convert as gguf_convert
from finetune_trainer.prepare import template_choice
from local_cluster.layout import cache
from tests.support import llama_server, tiny_model
from tests.support.tokenizer_families import FAMILIES, Family
from tests.training.served import GGUFS, LEARNED, Served, base_gguf, messages

SYSTEM = "너는 헬스 코치다.\n짧게 답해라."
QUESTIONS = ("스쿼트는?", "몇 번?")
# A template of a job's own: it has no place for a system message but the first question.
CUSTOM = (
    "{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] %}{% set turns = messages[1:] %}"
    "{% else %}{% set system = '' %}{% set turns = messages %}{% endif %}"
    "{% for m in turns %}{% if m['role'] == 'user' %}{{ '질문: ' + (system + '\n\n' if loop.first and system else '') "
    "+ m['content'] | trim + '\n' }}{% else %}{{ '답: ' + m['content'] + eos_token + '\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '답: ' }}{% endif %}"
)
DATASET = DatasetPlan.model_validate(
    {"sources": [], "format": "Auto", "promptTemplate": "Auto", "minimumExamples": 50, "invalidRows": "Fail"}
    | {"holdoutPercent": 5}
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLAMA_CPP_DIR", str(cache() / "llama.cpp"))
        yield tmp_path_factory.mktemp("llama-server")


@pytest.fixture(scope="module")
def files(folder: Path) -> dict[str, Path]:
    """GGUF files by the name of their template, converted as export does it."""
    made = {}
    for name, jinja in {"model": None, "custom": CUSTOM, "alpaca": chat_template.ALPACA_JINJA}.items():
        base = tiny_model.build(folder / name)
        if jinja is not None:
            (base / "chat_template.jinja").write_text(jinja, encoding="utf-8")
        made[name] = folder / f"{name}.gguf"
        gguf_convert.convert(base, made[name], "F16", folder, lambda percent: None)
    return made


def conversation(system: str | None) -> list[Message]:
    answer: Message = {"role": "assistant", "content": "천천히 하세요."}
    return [*chat_template.conversation(system, QUESTIONS[0]), answer, *chat_template.conversation(None, QUESTIONS[1])]


def conversations(system: str | None) -> tuple[list[Message], ...]:
    return chat_template.conversation(system, QUESTIONS[0]), conversation(system)


@pytest.mark.parametrize("name", ["model", "custom", "alpaca"])
def test_the_template_in_the_file_makes_the_trained_tokens(
    files: dict[str, Path], folder: Path, tokenizer: Any, name: str
) -> None:
    jinja = {"model": tokenizer.chat_template, "custom": CUSTOM, "alpaca": chat_template.ALPACA_JINJA}[name]
    with llama_server.serve(folder, files[name]) as server:
        for system in (SYSTEM, None):
            for asked in conversations(system):
                text = chat_template.render(tokenizer, jinja, asked, generate=True)
                assert server.rendered(asked) == (text, chat_template.encode(tokenizer, text))


@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.name)
def test_the_shipped_template_of_every_family_is_rendered_as_in_training(
    files: dict[str, Path], folder: Path, tokenizer: Any, family: Family
) -> None:
    dataset = DATASET.model_copy(update={"chat_template_kwargs": family.kwargs})
    jinja = template_choice.choose(dataset, family.load(), None, family.name).jinja
    path = folder / f"{family.name}.jinja"
    path.write_text(jinja, encoding="utf-8")
    with llama_server.serve(folder, files["model"], "--chat-template-file", str(path)) as server:
        for system in (SYSTEM, None):
            for asked in conversations(system):
                # BOS and EOS are those of the file.
                assert server.rendered(asked)[0] == chat_template.render(tokenizer, jinja, asked, generate=True)


@pytest.mark.parametrize("kind", GGUFS)
def test_an_exported_file_answers_as_trained(served: Served, folder: Path, kind: str) -> None:
    with llama_server.serve(folder, served.gguf(kind)) as server:
        assert server.rendered(messages())[1] == served.prompt_ids()
        assert server.answer(messages()).strip() == LEARNED


def test_the_adapter_alone_answers_as_trained_beside_the_base(served: Served, folder: Path) -> None:
    jinja = served.run / "gguf/chat_template.jinja"
    more = ("--lora", str(served.gguf("LoRA")), "--chat-template-file", str(jinja))
    with llama_server.serve(folder, base_gguf(), *more) as server:
        assert server.answer(messages()).strip() == LEARNED


def test_the_base_answers_otherwise(folder: Path) -> None:
    # The control: an answer that was there before training would prove nothing.
    with llama_server.serve(folder, base_gguf()) as server:
        assert LEARNED not in server.answer(messages())
