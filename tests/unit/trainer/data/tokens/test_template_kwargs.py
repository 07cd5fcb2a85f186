"""Values for the chat template, set in its text so that every server has them."""

from typing import Any

import pytest

from finetune_trainer.data.tokens.chat_template import render
from finetune_trainer.data.tokens.template_kwargs import literal, write_into
from finetune_trainer.errors import SettingsError

SHOWN = "{{ value is boolean }}|{{ value is integer }}|{{ value }}"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("true", "True|False|True"),
        ("False", "True|False|False"),
        ("-12", "False|True|-12"),
        ("1.5", "False|False|1.5"),
        ("", "False|False|"),
        ("yes", "False|False|yes"),
        ('say "안녕" 🏋️ \\n %}\n{{ end }}', 'False|False|say "안녕" 🏋️ \\n %}\n{{ end }}'),
        ("'); x = ('", "False|False|'); x = ('"),
    ],
)
def test_values_reach_the_template_with_their_kind(tokenizer: Any, value: str, shown: str) -> None:
    jinja = write_into(SHOWN, {"value": value})
    assert render(tokenizer, jinja, [{"role": "user", "content": "a"}], generate=True) == shown


def test_what_a_server_passes_does_not_change_what_was_trained(tokenizer: Any) -> None:
    jinja = write_into("{{ enable_thinking }}", {"enable_thinking": "false"})
    messages = [{"role": "user", "content": "a"}]
    shown = tokenizer.apply_chat_template(messages, chat_template=jinja, tokenize=False, enable_thinking=True)
    assert shown == "False"


def test_macros_and_loops_see_the_values(tokenizer: Any) -> None:
    jinja = "{% macro m() %}{{ depth }}{% endmacro %}{% for x in messages %}{{ depth }}{{ m() }}{% endfor %}"
    shown = render(tokenizer, write_into(jinja, {"depth": "3"}), [{"role": "user", "content": "a"}], generate=True)
    assert shown == "33"


def test_the_order_of_the_values_does_not_matter() -> None:
    assert write_into("{{ a }}{{ b }}", {"b": "1", "a": "2"}) == write_into("{{ a }}{{ b }}", {"a": "2", "b": "1"})


def test_without_values_the_template_is_the_same() -> None:
    assert write_into("{{ a }}", {}) == "{{ a }}"


@pytest.mark.parametrize(
    "name", ["messages", "tools", "add_generation_prompt", "bos_token", "eos_token", "strftime_now"]
)
def test_names_of_the_renderer_are_refused(name: str) -> None:
    with pytest.raises(SettingsError, match=rf"dataset\.chatTemplateKwargs: {name} is set by the trainer"):
        write_into(f"{{{{ {name} }}}}", {name: "x"})


@pytest.mark.parametrize("name", ["a b", "1a", "이름", "a%}{{b", ""])
def test_names_that_no_template_can_read_are_refused(name: str) -> None:
    with pytest.raises(SettingsError, match="is not a name that a chat template can read"):
        write_into(name, {name: "x"})


def test_a_name_that_the_template_does_not_read_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"does not read enable_thinkin; correct the name or leave it out"):
        write_into("{{ enable_thinking }}", {"enable_thinkin": "false"})


def test_literals_are_jinja() -> None:
    assert [literal(v) for v in ("TRUE", "007", "a\tb")] == ["true", "7", '"a\\tb"']
