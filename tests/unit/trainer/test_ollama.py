"""A TEMPLATE for Ollama is written only if it renders what was trained."""

from collections.abc import Callable
from typing import Any

import pytest

from finetune_trainer import ollama
from finetune_trainer.data import template

LLAMA_3 = (
    "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' "
    "+ m['content'] + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
UNKNOWN = "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}"


def rendered(tokenizer: Any, jinja: str, system: str | None) -> Callable[[str], str]:
    return lambda prompt: template.render_prompt(tokenizer, jinja, system, prompt)


def describe(tokenizer: Any, jinja: str, system: str | None) -> ollama.Modelfile:
    bos = tokenizer.bos_token
    return ollama.describe(rendered(tokenizer, jinja, system), bos, system, ["<|im_end|>"], 512)


@pytest.mark.parametrize("system", ["You are a coach.", None])
@pytest.mark.parametrize("name", ["Model", "Alpaca"])
def test_the_template_renders_as_training_did(tokenizer: Any, name: str, system: str | None) -> None:
    jinja = template.ALPACA_JINJA if name == "Alpaca" else tokenizer.chat_template
    made = describe(tokenizer, jinja, system)
    assert made.template is not None
    text = ollama.render(made.template, made.system, "스쿼트는?")
    assert text == rendered(tokenizer, jinja, system)("스쿼트는?").removeprefix(
        tokenizer.bos_token if name == "Alpaca" else "\0"
    )


@pytest.mark.parametrize("system", ["You are a coach.", None])
def test_llama_3_renders_without_the_bos_that_ollama_adds(tokenizer: Any, system: str | None) -> None:
    made = describe(tokenizer, LLAMA_3, system)
    assert made.template is not None
    text = ollama.render(made.template, made.system, "스쿼트는?")
    assert tokenizer.bos_token + text == rendered(tokenizer, LLAMA_3, system)("스쿼트는?")


def test_an_unknown_template_is_left_to_the_file(tokenizer: Any) -> None:
    assert describe(tokenizer, UNKNOWN, None).template is None


def test_the_modelfile_names_the_file_beside_it_and_each_stop() -> None:
    made = ollama.Modelfile("{{ .Prompt }}", 'Say "hi"', ("<|im_end|>", "<|eot_id|>"), 512)
    assert ollama.text(made, "coach-Q8_0.gguf").splitlines() == [
        "FROM ./coach-Q8_0.gguf",
        'TEMPLATE "{{ .Prompt }}"',
        'SYSTEM """Say "hi""""',
        'PARAMETER stop "<|im_end|>"',
        'PARAMETER stop "<|eot_id|>"',
        "PARAMETER num_ctx 512",
    ]
