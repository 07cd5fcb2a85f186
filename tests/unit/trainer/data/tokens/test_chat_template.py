"""What is rendered around a conversation: one beginning of text, no clock, the same as a server."""

import copy
from typing import Any

import pytest

from finetune_trainer.data.tokens.chat_template import (
    ALPACA_JINJA,
    RenderError,
    encode,
    own_jinja,
    render,
    render_prompt,
)

BOS = 1
CONTENTS = "{% for m in messages %}{{ m['content'] }}{% endfor %}"


@pytest.fixture
def own(tokenizer: Any) -> Any:
    """A copy to change."""
    return copy.deepcopy(tokenizer)


@pytest.mark.parametrize("own_template", [True, False])
def test_a_tokenizer_that_adds_a_beginning_of_text_gets_exactly_one(own: Any, own_template: bool) -> None:
    from tokenizers.processors import TemplateProcessing

    own.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", BOS)]
    )
    assert own("a")["input_ids"][0] == BOS
    ids = encode(own, render_prompt(own, own.chat_template if own_template else ALPACA_JINJA, None, "a"))
    assert ids[0] == BOS
    assert ids[1] != BOS


def test_a_tokenizer_that_adds_none_gets_none(tokenizer: Any) -> None:
    assert encode(tokenizer, "a") == tokenizer("a", add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("clock", ["{{ strftime_now('%d %b %Y') }}", "{{ date_string }}"])
def test_dates_in_templates_are_pinned(tokenizer: Any, clock: str) -> None:
    assert render_prompt(tokenizer, clock + CONTENTS, None, "a") == "26 Jul 2024a"


def test_system_prompt_comes_first(tokenizer: Any) -> None:
    assert render_prompt(tokenizer, tokenizer.chat_template, "짧게", "안녕") == (
        "<|im_start|>system\n짧게<|im_end|>\n<|im_start|>user\n안녕<|im_end|>\n<|im_start|>assistant\n"
    )
    assert render_prompt(tokenizer, ALPACA_JINJA, "짧게", "안녕") == (
        "짧게\n\nBelow is an instruction that describes a task. "
        "Write a response that appropriately completes the request.\n\n### Instruction:\n안녕\n\n### Response:\n"
    )


def test_of_several_templates_the_default_is_taken(own: Any) -> None:
    own.chat_template = {"default": CONTENTS, "tool_use": "x"}
    assert own_jinja(own) == CONTENTS


@pytest.mark.parametrize("template", [None, "", {"tool_use": "x"}])
def test_a_tokenizer_may_have_none(own: Any, template: Any) -> None:
    own.chat_template = template
    assert own_jinja(own) is None


REFUSES = "refuses a conversation of system, user: "
TOO_LONG = "Range too big. The sandbox blocks ranges larger than MAX_RANGE (100000)"


@pytest.mark.parametrize(
    ("jinja", "what"),
    [
        ("{{ raise_exception('no system') }}", f"{REFUSES}no system"),
        ("{{ messages[5]['content'] + 1 }}", f"{REFUSES}list object has no element 5"),
        ("{{ messages[0]['content'] + 1 }}", f'{REFUSES}can only concatenate str (not "int") to str'),
        ("{% for i in range(10 ** 9) %}{% endfor %}", f"{REFUSES}{TOO_LONG}"),
        ("{{ ''.__class__.__mro__ }}", f"{REFUSES}access to attribute '__class__' of 'str' object is unsafe"),
        ("a\n{% for %}", "has an error in line 2: Expected an expression, got 'end of statement block'"),
    ],
)
def test_what_a_template_does_instead_of_rendering_is_reported(tokenizer: Any, jinja: str, what: str) -> None:
    with pytest.raises(RenderError) as caught:
        render(tokenizer, jinja, [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}], generate=True)
    assert caught.value.what == what
