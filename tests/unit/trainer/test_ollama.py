"""A TEMPLATE for Ollama is written only if it renders what was trained."""

from collections.abc import Callable
from typing import Any

import pytest

from finetune_api.plan import DatasetPlan
from finetune_trainer import ollama, template_choice
from finetune_trainer.data import template
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


def rendered(tokenizer: Any, jinja: str, system: str | None) -> Callable[[str], str]:
    return lambda prompt: template.render_prompt(tokenizer, jinja, system, prompt)


def describe(tokenizer: Any, jinja: str, system: str | None, bos: str | None = None) -> ollama.Modelfile:
    return ollama.describe(rendered(tokenizer, jinja, system), bos, system, ["<|im_end|>"], 512)


@pytest.mark.parametrize("system", ["You are a coach.", None])
@pytest.mark.parametrize("name", ["Model", "Alpaca"])
def test_the_template_renders_as_training_did(tokenizer: Any, name: str, system: str | None) -> None:
    jinja = template.ALPACA_JINJA if name == "Alpaca" else tokenizer.chat_template
    made = describe(tokenizer, jinja, system)
    assert made.template is not None
    assert ollama.render(made.template, made.system, "스쿼트는?") == rendered(tokenizer, jinja, system)("스쿼트는?")


@pytest.mark.parametrize("system", ["You are a coach.", None])
def test_llama_3_renders_without_the_bos_that_ollama_adds(tokenizer: Any, system: str | None) -> None:
    made = describe(tokenizer, LLAMA_3, system, tokenizer.bos_token)
    assert made.template is not None
    text = ollama.render(made.template, made.system, "스쿼트는?")
    assert tokenizer.bos_token + text == rendered(tokenizer, LLAMA_3, system)("스쿼트는?")


@pytest.mark.parametrize("system", ["You are a coach.", None])
@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.name)
def test_every_family_renders_as_training_did(family: Family, system: str | None) -> None:
    tokenizer = family.load()
    jinja = template_choice.choose(
        DATASET.model_copy(update={"chat_template_kwargs": family.kwargs}), tokenizer, None, family.name
    ).jinja
    bos = tokenizer.bos_token if template.adds_bos(tokenizer) else None
    made = describe(tokenizer, jinja, system, bos)
    assert made.template is not None
    text = ollama.render(made.template, made.system, "스쿼트는?")
    assert text == rendered(tokenizer, jinja, system)("스쿼트는?").removeprefix(bos or "")


def test_a_template_of_the_jobs_own_is_written_out(tokenizer: Any) -> None:
    made = describe(tokenizer, UNKNOWN, "Coach.")
    assert (made.template, made.system) == ("[system]{{ .System }}[user]{{ .Prompt }}[assistant]", "Coach.")


@pytest.mark.parametrize("jinja", ["{{ '{{' }}" + UNKNOWN, UNKNOWN.replace("m['content']", "m['content'] | upper")])
def test_what_ollama_cannot_say_is_left_to_the_file(tokenizer: Any, jinja: str) -> None:
    assert describe(tokenizer, jinja, None).template is None


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
