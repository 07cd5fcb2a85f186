"""Ollama's Modelfile. Its TEMPLATE (Go's text/template) is written only if it renders the text of training.

Ollama never runs the Jinja template of a GGUF. Without a TEMPLATE it chooses one of its own that looks similar, or
sends the question alone.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from finetune_trainer.data.rows.example import Message
from finetune_trainer.data.tokens.chat_template import RenderError, conversation

# By family: a marker of the chat template, and the same text as an Ollama template. Ollama renders it for each question
# of a conversation, for the last one only up to .Response; .System is set for the first question only.
_FAMILIES = (
    (
        "<|im_start|>",
        "{{ if .System }}<|im_start|>system\n{{ .System }}<|im_end|>\n{{ end }}"
        "<|im_start|>user\n{{ .Prompt }}<|im_end|>\n<|im_start|>assistant\n{{ .Response }}<|im_end|>\n",
    ),
    (
        "<|start_header_id|>",
        "{{ if .System }}<|start_header_id|>system<|end_header_id|>\n\n{{ .System }}<|eot_id|>{{ end }}"
        "<|start_header_id|>user<|end_header_id|>\n\n{{ .Prompt }}<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n{{ .Response }}<|eot_id|>",
    ),
    (
        "### Instruction:",
        "{{ if .System }}{{ .System }}\n\n{{ end }}"
        "Below is an instruction that describes a task. Write a response that appropriately completes the request."
        "\n\n### Instruction:\n{{ .Prompt }}\n\n### Response:\n{{ .Response }}",
    ),
)
_RESPONSE = "{{ .Response }}"
_IF_SYSTEM = re.compile(r"{{ if \.System }}(.*?)(?:{{ else }}(.*?))?{{ end }}", re.DOTALL)
# Texts that no template contains.
_PROBE = "finetune probe: 한국어?"
_ANSWER = "finetune answer: 네."
_NEXT = "finetune next: 그래서?"

_NO_TEMPLATE = (
    "The chat template that this model was trained with cannot be written in Ollama's template language, so Ollama "
    "would send text that the model was not trained on. FROM is left out on purpose: `ollama create` fails. "
    "Use `llama-server --jinja`, which renders the template in the GGUF: see SERVE.md."
)
_ONE_QUESTION = (
    "Ask one question per conversation: Ollama's template language cannot render earlier turns of a conversation "
    "as this model's chat template does. `llama-server --jinja` can: see SERVE.md."
)
_CHANGED_SYSTEM = (
    "A Modelfile cannot contain every character of the system prompt: Ollama removes invisible ones, such as "
    "no-break spaces. Send the system prompt used in training with each request instead."
)


@dataclass(frozen=True)
class Modelfile:
    """The content of a Modelfile besides the name of the GGUF."""

    template: str | None
    system: str | None
    stops: tuple[str, ...]
    context_tokens: int
    # True if Ollama renders earlier turns of a conversation differently from the chat template.
    one_question: bool = False


@dataclass(frozen=True)
class _Wanted:
    """Text of the chat template, without BOS: for one question, and for two with an answer, if it accepts that."""

    one: str
    two: str | None
    # The text before a question without a system prompt; None if the template does not accept that.
    opening: str | None


def render(template: str, system: str | None, prompt: str, earlier: Sequence[tuple[str, str]] = ()) -> str:
    """Return what Ollama renders with one of these templates after `earlier` (question, answer).

    The templates use no other construct of Go than those handled here.
    """
    text = ""
    for question, answer in earlier:
        text += _turn(template if _RESPONSE in template else template + _RESPONSE, system, question, answer)
        system = None
    return text + _turn(template.partition(_RESPONSE)[0], system, prompt, "")


def _turn(template: str, system: str | None, prompt: str, answer: str) -> str:
    text = _IF_SYSTEM.sub(lambda found: (found[1] if system else found[2]) or "", template)
    values = {"System": system or "", "Prompt": prompt, "Response": answer}
    return re.sub(r"{{ \.(System|Prompt|Response) }}", lambda found: values[found[1]], text)


def describe(
    rendered: Callable[[Sequence[Message]], str],
    bos: str | None,
    system: str | None,
    stops: Sequence[str],
    context_tokens: int,
) -> Modelfile:
    """Return the Modelfile's content.

    `rendered` returns the chat template's text of a conversation, up to where the answer begins, or raises RenderError
    if the template does not accept it. `bos` is the token added to a text, or None; Ollama adds it as the GGUF's
    metadata says. The template is None if no Ollama template renders the same text.
    """
    wanted = _wanted(rendered, bos or "", system)
    one_question: Modelfile | None = None
    for template, found in _candidates(wanted, system):
        if render(template, found, _PROBE) != wanted.one:
            continue
        if wanted.two is not None and render(template, found, _NEXT, [(_PROBE, _ANSWER)]) == wanted.two:
            return Modelfile(template, found, tuple(stops), context_tokens)
        one_question = one_question or Modelfile(template, found, tuple(stops), context_tokens, one_question=True)
    return one_question or Modelfile(None, system, tuple(stops), context_tokens)


def _wanted(rendered: Callable[[Sequence[Message]], str], bos: str, system: str | None) -> _Wanted:
    def text(messages: Sequence[Message]) -> str:
        return rendered(messages).removeprefix(bos)

    def text_if_taken(messages: Sequence[Message]) -> str | None:
        try:
            return text(messages)
        except RenderError:
            return None

    first = conversation(system, _PROBE)
    alone = text_if_taken(conversation(None, _PROBE))
    return _Wanted(
        one=text(first),
        two=text_if_taken([*first, {"role": "assistant", "content": _ANSWER}, *conversation(None, _NEXT)]),
        opening=None if alone is None else alone.rpartition(_PROBE)[0],
    )


def _candidates(wanted: _Wanted, system: str | None) -> Iterator[tuple[str, str | None]]:
    """Yield templates that may render the wanted text, each with its system prompt."""
    for template in (t for marker, t in _FAMILIES if marker in wanted.one):
        # Some chat templates have a default system prompt.
        yield template, system or _system_in(template, wanted.one)
    if "{{" in wanted.one:
        return
    # Many chat templates strip the text that they are given.
    for given in dict.fromkeys((system, system.strip() if system else system)):
        before, _, after = wanted.one.rpartition(_PROBE)
        if given:
            before = before.replace(given, "{{ .System }}", 1)
        if wanted.two is not None:
            yield _conversational(wanted.two, wanted.opening, before, given), given
        yield f"{before}{{{{ .Prompt }}}}{after}", given


def _conversational(two: str, opening: str | None, before: str, system: str | None) -> str:
    """Return a template made from the text of two questions; `before` is the text before the first one."""
    _, _, rest = two.partition(_PROBE)
    middle, _, rest = rest.partition(_ANSWER)
    between, _, _ = rest.partition(_NEXT)
    if not opening or not between.endswith(opening):
        opening = between
    if system:
        before = (
            f"{{{{ if .System }}}}{before.removesuffix(opening)}{{{{ end }}}}{opening}"
            if before.endswith(opening)
            else f"{{{{ if .System }}}}{before}{{{{ else }}}}{opening}{{{{ end }}}}"
        )
    return f"{before}{{{{ .Prompt }}}}{middle}{_RESPONSE}{between.removesuffix(opening)}"


def _system_in(template: str, wanted: str) -> str | None:
    with_system = render(template, "\0", _PROBE)
    before, _, after = with_system.partition("\0")
    if wanted.startswith(before) and wanted.endswith(after) and len(wanted) > len(before) + len(after):
        return wanted[len(before) : len(wanted) - len(after)]
    return None


def text(modelfile: Modelfile, gguf_name: str) -> str:
    """Return the Modelfile of a GGUF in the same folder; without a template, one that `ollama create` refuses."""
    if modelfile.template is None:
        return f"# {_NO_TEMPLATE}\n"
    lines = [f"# {_ONE_QUESTION}"] if modelfile.one_question else []
    if modelfile.system and _kept(modelfile.system) != modelfile.system:
        lines.append(f"# {_CHANGED_SYSTEM}")
    lines += [f"FROM ./{gguf_name}", f"TEMPLATE {_quoted(_escaped(modelfile.template))}"]
    if modelfile.system:
        lines.append(f"SYSTEM {_quoted(_kept(modelfile.system))}")
    lines += [f"PARAMETER stop {_quoted(stop)}" for stop in modelfile.stops]
    lines.append(f"PARAMETER num_ctx {modelfile.context_tokens}")
    return "\n".join(lines) + "\n"


def _is_kept(character: str) -> bool:
    """Return whether Ollama's parser keeps it: it drops characters that Go's strconv.IsPrint calls invisible."""
    return character.isprintable() or character in "\n\r\t"


def _kept(value: str) -> str:
    """Return the part of a value that a Modelfile can contain: three quotes would end it."""
    return "".join(filter(_is_kept, value)).replace('"""', "'''")


def _escaped(template: str) -> str:
    """Return the template with characters that a Modelfile cannot contain as Go strings."""
    escaped = "".join(c if _is_kept(c) else f'{{{{ "\\U{ord(c):08x}" }}}}' for c in template)
    return escaped.replace('"""', '{{ "\\"\\"\\"" }}')


def _quoted(value: str) -> str:
    """Quote for a Modelfile: with three quotes if the value has several lines or quotes."""
    if "\n" in value or '"' in value:
        return '"""' + value + '"""'
    return f'"{value}"'
