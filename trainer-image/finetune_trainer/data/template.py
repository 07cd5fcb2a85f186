"""How a conversation becomes text: the tokenizer's chat template, or the Alpaca text as one more chat template."""

from collections.abc import Sequence
from datetime import date
from typing import Any, Literal

from finetune_trainer.data.example import Message
from finetune_trainer.errors import ModelError

Template = Literal["Model", "Alpaca"]

# The text of https://github.com/tatsu-lab/stanford_alpaca, as the chat template that adapter, merged model and GGUF
# carry, so that every server renders what was trained.
ALPACA_JINJA = (
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ message['content'] + '\n\n' }}"
    "{% elif message['role'] == 'user' %}"
    "{% if loop.first or (loop.index0 == 1 and messages[0]['role'] == 'system') %}"
    "{{ 'Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request.\n\n' }}{% endif %}"
    "{{ '### Instruction:\n' + message['content'] + '\n\n' }}"
    "{% if not loop.last %}{{ '### Response:\n' }}{% elif add_generation_prompt %}{{ '### Response:\n' }}{% endif %}"
    "{% else %}{{ message['content'] + eos_token }}{% if not loop.last %}{{ '\n\n' }}{% endif %}{% endif %}"
    "{% endfor %}"
)
# Some templates print the date. A pinned one keeps the tokens the same from day to day; it is the default of the
# Llama 3.1 template itself.
_DATE = date(2024, 7, 26)


def jinja(tokenizer: Any, template: Template) -> str:
    """Return the chat template to render with and to ship.

    Raises:
        ModelError: `Model` is asked for and the tokenizer has none.
    """
    if template == "Alpaca":
        return ALPACA_JINJA
    own = tokenizer.chat_template
    if isinstance(own, dict):  # a tokenizer may carry several, by name
        own = own.get("default")
    if not own:
        raise ModelError(
            "the model's tokenizer has no chat template, as most base models; "
            "set dataset.promptTemplate to Alpaca or use the -Instruct repository"
        )
    return str(own)


def render(tokenizer: Any, template: Template, messages: Sequence[Message], *, generate: bool) -> str:
    """Return the text of a conversation; with `generate`, it ends where the model's answer begins.

    Raises:
        ModelError: the template does not take this conversation.
    """
    from jinja2.exceptions import TemplateError

    try:
        return str(
            tokenizer.apply_chat_template(
                list(messages),
                chat_template=jinja(tokenizer, template),
                add_generation_prompt=generate,
                tokenize=False,
                date_string=_DATE.strftime("%d %b %Y"),
                strftime_now=_DATE.strftime,
            )
        )
    except TemplateError as error:
        roles = ", ".join(m["role"] for m in messages)
        raise ModelError(
            f"the model's chat template refuses a conversation of {roles}: {error}; "
            "leave out dataset.systemPrompt and system messages, or set dataset.promptTemplate to Alpaca"
        ) from error


def render_prompt(tokenizer: Any, template: Template, system_prompt: str | None, prompt: str) -> str:
    """Return the text that a server shows the model for one question, up to where the answer begins.

    Raises:
        ModelError: the template does not take it.
    """
    return render(tokenizer, template, conversation(system_prompt, prompt), generate=True)


def conversation(system_prompt: str | None, prompt: str) -> list[Message]:
    """Return one question as messages."""
    system: list[Message] = [{"role": "system", "content": system_prompt}] if system_prompt else []
    return [*system, {"role": "user", "content": prompt}]


def encode(tokenizer: Any, text: str) -> list[int]:
    """Return the token ids of rendered text: exactly one BOS where the tokenizer wants one, as llama.cpp does it."""
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    bos = tokenizer.bos_token_id
    if bos is not None and adds_bos(tokenizer) and ids[:1] != [bos]:
        return [bos, *ids]
    return ids


def adds_bos(tokenizer: Any) -> bool:
    """Return whether the tokenizer itself starts a text with BOS."""
    first: list[int] = tokenizer("a")["input_ids"][:1]
    return first == [tokenizer.bos_token_id]
