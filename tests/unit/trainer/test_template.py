"""What is rendered around a conversation: one beginning of text, no clock, the same as a server."""

import copy
from typing import Any

import pytest

from finetune_trainer.data.template import ALPACA_JINJA, Template, encode, jinja, render, render_prompt
from finetune_trainer.errors import ModelError

BOS = 1


@pytest.fixture
def own(tokenizer: Any) -> Any:
    """A copy to change."""
    return copy.deepcopy(tokenizer)


@pytest.mark.parametrize("template", ["Model", "Alpaca"])
def test_a_tokenizer_that_adds_a_beginning_of_text_gets_exactly_one(own: Any, template: Template) -> None:
    from tokenizers.processors import TemplateProcessing

    own.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", BOS)]
    )
    assert own("a")["input_ids"][0] == BOS
    ids = encode(own, render_prompt(own, template, None, "a"))
    assert ids[0] == BOS
    assert ids[1] != BOS


def test_a_tokenizer_that_adds_none_gets_none(tokenizer: Any) -> None:
    assert encode(tokenizer, "a") == tokenizer("a", add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("clock", ["{{ strftime_now('%d %b %Y') }}", "{{ date_string }}"])
def test_dates_in_templates_are_pinned(own: Any, clock: str) -> None:
    own.chat_template = clock + "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    assert render_prompt(own, "Model", None, "a") == "26 Jul 2024a"


def test_system_prompt_comes_first(tokenizer: Any) -> None:
    assert render_prompt(tokenizer, "Model", "짧게", "안녕") == (
        "<|im_start|>system\n짧게<|im_end|>\n<|im_start|>user\n안녕<|im_end|>\n<|im_start|>assistant\n"
    )
    assert render_prompt(tokenizer, "Alpaca", "짧게", "안녕") == (
        "짧게\n\nBelow is an instruction that describes a task. "
        "Write a response that appropriately completes the request.\n\n### Instruction:\n안녕\n\n### Response:\n"
    )


def test_the_template_to_ship_is_the_one_that_renders(tokenizer: Any) -> None:
    assert jinja(tokenizer, "Model") == tokenizer.chat_template
    assert jinja(tokenizer, "Alpaca") == ALPACA_JINJA


def test_of_several_templates_the_default_is_taken(own: Any) -> None:
    own.chat_template = {"default": "{{ messages[0]['content'] }}", "tool_use": "x"}
    assert render_prompt(own, "Model", None, "a") == "a"


def test_a_template_that_refuses_system_messages_is_told(own: Any) -> None:
    own.chat_template = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    with pytest.raises(ModelError, match=r"refuses a conversation of system, user: no system; leave out"):
        render(own, "Model", [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}], generate=True)
