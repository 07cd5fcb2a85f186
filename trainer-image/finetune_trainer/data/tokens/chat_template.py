"""How a conversation becomes text: a chat template, be it the model's, the Alpaca text as one more, or the user's."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal

from finetune_trainer.data.rows.example import Example, Message
from finetune_trainer.errors import ModelError, SettingsError, StageError

Template = Literal["Model", "Alpaca", "Custom"]

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
_DATE_STRING = _DATE.strftime("%d %b %Y")


@dataclass(frozen=True)
class ChatTemplate:
    """The one template of a job."""

    kind: Template
    # Renders every row and every prompt, and is what adapter, merged model and GGUF carry: nothing is passed beside it.
    jinja: str

    @property
    def subject(self) -> str:
        """How messages name it."""
        return {
            "Model": "the model's chat template",
            "Alpaca": "the Alpaca text",
            "Custom": "the chat template of dataset.templateRef",
        }[self.kind]

    def error(self, sentence: str) -> StageError:
        """Return the error that says `sentence` of the template and what to do."""
        if self.kind == "Custom":
            return SettingsError(f"{self.subject} {sentence}; correct it")
        return ModelError(
            f"{self.subject} {sentence}; set dataset.promptTemplate to Alpaca, or give a template of your own "
            "in dataset.templateRef"
        )


class RenderError(ModelError):
    """The template does not take a conversation; `what` it does instead, without its subject."""

    def __init__(self, what: str) -> None:
        super().__init__(f"the chat template {what}")
        self.what = what


def own_jinja(tokenizer: Any) -> str | None:
    """Return the tokenizer's chat template, if it has one."""
    own = tokenizer.chat_template
    if isinstance(own, dict):  # a tokenizer may carry several, by name
        own = own.get("default")
    return str(own) if own else None


def with_date(jinja: str) -> str:
    """Return the template with the date of training in it, if it reads one: servers pass none, or that of the day."""
    return f"{{% set date_string = '{_DATE_STRING}' %}}{jinja}" if "date_string" in jinja else jinja


def render(tokenizer: Any, jinja: str, messages: Sequence[Message], *, generate: bool) -> str:
    """Return the text of a conversation; with `generate`, it ends where the model's answer begins.

    Raises:
        RenderError: the template does not take this conversation.
    """
    from jinja2.exceptions import TemplateSyntaxError

    try:
        return str(
            tokenizer.apply_chat_template(
                list(messages),
                chat_template=jinja,
                add_generation_prompt=generate,
                tokenize=False,
                date_string=_DATE_STRING,
                strftime_now=_DATE.strftime,
            )
        )
    except TemplateSyntaxError as error:
        raise RenderError(f"has an error in line {error.lineno}: {str(error.message).rstrip('.')}") from error
    except Exception as error:  # A template is somebody's program; it may fail in any way.
        roles = ", ".join(m["role"] for m in messages)
        raise RenderError(f"refuses a conversation of {roles}: {str(error).rstrip('.')}") from error


def render_prompt(tokenizer: Any, jinja: str, system_prompt: str | None, prompt: str) -> str:
    """Return the text that a server shows the model for one question, up to where the answer begins.

    Raises:
        RenderError: the template does not take it.
    """
    return render(tokenizer, jinja, conversation(system_prompt, prompt), generate=True)


def messages_of(example: Example, template: Template, system_prompt: str | None) -> list[Message]:
    """Return the messages to render: the row's own system message wins over the job's."""
    messages = list(example.messages)
    if example.context:
        first = next(i for i, m in enumerate(messages) if m["role"] == "user")
        messages[first] = {"role": "user", "content": question_of(example, template)}
    if system_prompt and messages[0]["role"] != "system":
        messages.insert(0, {"role": "system", "content": system_prompt})
    return messages


def question_of(example: Example, template: Template) -> str:
    """Return the text of the first question, with an Alpaca row's input in its place."""
    question = next(m["content"] for m in example.messages if m["role"] == "user")
    if not example.context:
        return question
    heading = "### Input:\n" if template == "Alpaca" else ""
    return f"{question}\n\n{heading}{example.context}"


def conversation(system_prompt: str | None, prompt: str) -> list[Message]:
    """Return one question as messages."""
    system: list[Message] = [{"role": "system", "content": system_prompt}] if system_prompt else []
    return [*system, {"role": "user", "content": prompt}]


def encode(tokenizer: Any, text: str) -> list[int]:
    """Return the token ids of rendered text: exactly one BOS where the tokenizer wants one, as llama.cpp does it."""
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    bos = tokenizer.bos_token_id
    if bos is not None and ids[:1] != [bos] and adds_bos(tokenizer):
        return [bos, *ids]
    return ids


def adds_bos(tokenizer: Any) -> bool:
    """Return whether the tokenizer itself starts a text with BOS."""
    first: list[int] = tokenizer("a")["input_ids"][:1]
    return first == [tokenizer.bos_token_id]
