"""Ollama's Modelfile. Its TEMPLATE is Go's text/template; only one that renders what was trained is written.

Ollama never runs the Jinja template of a GGUF: without a TEMPLATE it takes one of its own that looks alike, or sends
the bare question.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from finetune_trainer.data.rows.example import Message
from finetune_trainer.data.tokens.chat_template import RenderError, conversation

# By family: what a chat template contains, and the same text in Ollama's words. Ollama renders each question of a
# conversation with it, and of the last one only what stands before .Response; .System is empty but for the first.
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
# A conversation that no template contains.
_PROBE = "finetune probe: 한국어?"
_ANSWER = "finetune answer: 네."
_NEXT = "finetune next: 그래서?"

_NO_TEMPLATE = (
    "The chat template that this model was trained with cannot be written in Ollama's template language, and Ollama "
    "would send other text than the model knows. There is no FROM here, so that `ollama create` refuses. "
    "Use `llama-server --jinja`, which renders the template in the GGUF: see SERVE.md."
)
_ONE_QUESTION = (
    "Ask one question per conversation: Ollama's template language cannot write the earlier turns of a conversation "
    "as this model's chat template does. `llama-server --jinja` can: see SERVE.md."
)
_CHANGED_SYSTEM = (
    "A Modelfile cannot hold every character of the system prompt: Ollama leaves out invisible ones, such as "
    "no-break spaces. Send the system prompt of the training with each request instead."
)


@dataclass(frozen=True)
class Modelfile:
    """What Ollama needs to know besides the file."""

    template: str | None
    system: str | None
    stops: tuple[str, ...]
    context_tokens: int
    # True if earlier turns of a conversation come out otherwise than the chat template writes them.
    one_question: bool = False


@dataclass(frozen=True)
class _Wanted:
    """Text of the chat template, without BOS: of one question, and of two with an answer, if it takes that."""

    one: str
    two: str | None
    # What stands before a question that has no system prompt; None if the template does not take that.
    opening: str | None


def render(template: str, system: str | None, prompt: str, earlier: Sequence[tuple[str, str]] = ()) -> str:
    """Return what Ollama makes of one of these templates after `earlier` (question, answer).

    No other construct of Go is in them.
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

    `rendered` gives the text that the chat template makes of a conversation, up to where the answer begins; it raises
    RenderError for one that it does not take. `bos` is the token that is added to a text, None if none is: it is left
    to Ollama, which adds it as the GGUF says. The template is None if nothing in Ollama's words renders that text.
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
    """Templates that may render what is wanted, each with its system prompt."""
    for template in (t for marker, t in _FAMILIES if marker in wanted.one):
        # Some chat templates bring a system prompt of their own where none is given.
        yield template, system or _system_in(template, wanted.one)
    if "{{" in wanted.one:
        return
    # Many chat templates trim what they are given.
    for said in dict.fromkeys((system, system.strip() if system else system)):
        before, _, after = wanted.one.rpartition(_PROBE)
        if said:
            before = before.replace(said, "{{ .System }}", 1)
        if wanted.two is not None:
            yield _conversational(wanted.two, wanted.opening, before, said), said
        yield f"{before}{{{{ .Prompt }}}}{after}", said


def _conversational(two: str, opening: str | None, before: str, system: str | None) -> str:
    """Return the text of two questions as it is, as the template of each; `before` is what stands before the first."""
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
    """Return the Modelfile of one GGUF that lies beside it; without a template, one that `ollama create` refuses."""
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
    """Whether Ollama's parser keeps it: it drops what Go's strconv.IsPrint does not know as visible."""
    return character.isprintable() or character in "\n\r\t"


def _kept(value: str) -> str:
    """Return what of a value a Modelfile can hold: three quotes at a line's end would end it."""
    return "".join(filter(_is_kept, value)).replace('"""', "'''")


def _escaped(template: str) -> str:
    """Return the template with what a Modelfile cannot hold as strings of Go."""
    escaped = "".join(c if _is_kept(c) else f'{{{{ "\\U{ord(c):08x}" }}}}' for c in template)
    return escaped.replace('"""', '{{ "\\"\\"\\"" }}')


def _quoted(value: str) -> str:
    """Quote for a Modelfile: three quotes for several lines, which may hold anything but three quotes."""
    if "\n" in value or '"' in value:
        return '"""' + value + '"""'
    return f'"{value}"'
