"""A TEMPLATE for Ollama is written only if it renders what was trained."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from finetune_api.plan import DatasetPlan
from finetune_trainer.data.rows.example import Message
from finetune_trainer.data.tokens import chat_template
from finetune_trainer.export.serving import modelfile
from finetune_trainer.prepare import template_choice
from tests.support.tokenizer_families import FAMILIES, Family

LLAMA_3 = (
    "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' "
    "+ m['content'] + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
UNKNOWN = "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}[assistant]"
DATASET = DatasetPlan.model_validate(
    {"sources": [], "format": "Auto", "promptTemplate": "Auto", "minimumExamples": 50, "invalidRows": "Fail"}
    | {"holdoutPercent": 5}
)


# It trims what it is given, takes no system message, and puts it before the first question.
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] | trim + '\n\n' %}"
    "{% set messages = messages[1:] %}{% else %}{% set system = '' %}{% endif %}"
    "{% for m in messages %}{{ '<start_of_turn>' + ('model' if m['role'] == 'assistant' else 'user') + '\n' "
    "+ (system if loop.first else '') + m['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{{ '<start_of_turn>model\n' }}"
)
EARLIER = [("스쿼트는?", "천천히 하세요."), ("몇 번?", "열 번요.")]


def rendered(tokenizer: Any, jinja: str, system: str | None) -> Callable[[str], str]:
    return lambda prompt: chat_template.render_prompt(tokenizer, jinja, system, prompt)


def conversation(tokenizer: Any, jinja: str, system: str | None, prompt: str) -> str:
    """What the chat template makes of `prompt` after EARLIER."""
    messages = chat_template.conversation(system, EARLIER[0][0])
    for (_, answer), question in zip(EARLIER, [EARLIER[1][0], prompt], strict=True):
        messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": question}]
    return chat_template.render(tokenizer, jinja, messages, generate=True)


def describe(tokenizer: Any, jinja: str, system: str | None, bos: str | None = None) -> modelfile.Modelfile:
    def text(messages: Sequence[Message]) -> str:
        return chat_template.render(tokenizer, jinja, messages, generate=True)

    return modelfile.describe(text, bos, system, ["<|im_end|>"], 512)


@pytest.mark.parametrize("system", ["You are a coach.", None])
@pytest.mark.parametrize("name", ["Model", "Alpaca"])
def test_the_template_renders_as_training_did(tokenizer: Any, name: str, system: str | None) -> None:
    jinja = chat_template.ALPACA_JINJA if name == "Alpaca" else tokenizer.chat_template
    made = describe(tokenizer, jinja, system)
    assert made.template is not None
    assert modelfile.render(made.template, made.system, "스쿼트는?") == rendered(tokenizer, jinja, system)("스쿼트는?")


@pytest.mark.parametrize("system", ["You are a coach.", None])
def test_llama_3_renders_without_the_bos_that_ollama_adds(tokenizer: Any, system: str | None) -> None:
    made = describe(tokenizer, LLAMA_3, system, tokenizer.bos_token)
    assert made.template is not None
    text = modelfile.render(made.template, made.system, "스쿼트는?")
    assert tokenizer.bos_token + text == rendered(tokenizer, LLAMA_3, system)("스쿼트는?")


@pytest.mark.parametrize("system", ["You are a coach.", None])
@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.name)
def test_every_family_renders_as_training_did(family: Family, system: str | None) -> None:
    tokenizer = family.load()
    jinja = template_choice.choose(
        DATASET.model_copy(update={"chat_template_kwargs": family.kwargs}), tokenizer, None, family.name
    ).jinja
    bos = tokenizer.bos_token if chat_template.adds_bos(tokenizer) else None
    made = describe(tokenizer, jinja, system, bos)
    assert made.template is not None
    text = modelfile.render(made.template, made.system, "스쿼트는?")
    assert text == rendered(tokenizer, jinja, system)("스쿼트는?").removeprefix(bos or "")


def test_a_template_of_the_jobs_own_is_written_out(tokenizer: Any) -> None:
    made = describe(tokenizer, UNKNOWN, "Coach.")
    assert (made.template, made.system) == (
        "{{ if .System }}[system]{{ .System }}{{ end }}[user]{{ .Prompt }}[assistant]{{ .Response }}",
        "Coach.",
    )


@pytest.mark.parametrize("system", ["  너는 코치다. ", None])
@pytest.mark.parametrize("name", ["ChatML", "Llama 3", "Gemma", "own"])
def test_earlier_turns_are_rendered_as_training_did(tokenizer: Any, name: str, system: str | None) -> None:
    jinja = {"ChatML": tokenizer.chat_template, "Llama 3": LLAMA_3, "Gemma": GEMMA, "own": UNKNOWN}[name]
    bos = tokenizer.bos_token if "bos_token" in jinja else None
    made = describe(tokenizer, jinja, system, bos)
    assert made.template is not None
    text = modelfile.render(made.template, made.system, "또?", EARLIER)
    assert text == conversation(tokenizer, jinja, system, "또?").removeprefix(bos or "")
    assert not made.one_question


def test_a_template_that_writes_earlier_turns_otherwise_is_for_one_question(tokenizer: Any) -> None:
    made = describe(tokenizer, UNKNOWN.replace("[{{ m['role'] }}]", "[{{ loop.index }}]"), None)
    assert made.one_question
    assert "one question" in modelfile.text(made, "coach.gguf").splitlines()[0]


def test_a_template_that_takes_one_question_only_is_for_one_question(tokenizer: Any) -> None:
    assert describe(
        tokenizer, "{% if messages[1:] %}{{ raise_exception('no') }}{% endif %}" + UNKNOWN, None
    ).one_question


@pytest.mark.parametrize("jinja", ["{{ '{{' }}" + UNKNOWN, UNKNOWN.replace("m['content']", "m['content'] | upper")])
def test_what_ollama_cannot_say_makes_a_modelfile_that_is_refused(tokenizer: Any, jinja: str) -> None:
    lines = modelfile.text(describe(tokenizer, jinja, None), "coach.gguf").splitlines()
    assert all(line.startswith("#") for line in lines)
    assert "llama-server --jinja" in lines[0]


def test_invisible_characters_of_the_template_are_written_as_go_strings() -> None:
    made = modelfile.Modelfile("\u00a0{{ .Prompt }}", None, (), 512)
    assert 'TEMPLATE """{{ "\\U000000a0" }}{{ .Prompt }}"""' in modelfile.text(made, "coach.gguf").splitlines()


@pytest.mark.parametrize("system", ["한국어\u00a0코치", 'Say """\nhi'])
def test_a_system_prompt_that_a_modelfile_cannot_hold_is_said(system: str) -> None:
    made = modelfile.text(modelfile.Modelfile("{{ .Prompt }}", system, (), 512), "coach.gguf")
    assert "Send the system prompt" in made.splitlines()[0]


@pytest.mark.parametrize("system", ["코치", "두 줄\n코치\t👩‍🏫".replace("\u200d", "")])
def test_of_a_system_prompt_that_it_can_hold_nothing_is_said(system: str) -> None:
    assert not modelfile.text(modelfile.Modelfile("{{ .Prompt }}", system, (), 512), "coach.gguf").startswith("#")


def test_the_modelfile_names_the_file_beside_it_and_each_stop() -> None:
    made = modelfile.Modelfile("{{ .Prompt }}", 'Say "hi"', ("<|im_end|>", "<|eot_id|>"), 512)
    assert modelfile.text(made, "coach-Q8_0.gguf").splitlines() == [
        "FROM ./coach-Q8_0.gguf",
        'TEMPLATE "{{ .Prompt }}"',
        'SYSTEM """Say "hi""""',
        'PARAMETER stop "<|im_end|>"',
        'PARAMETER stop "<|eot_id|>"',
        "PARAMETER num_ctx 512",
    ]
