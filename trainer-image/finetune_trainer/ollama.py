"""Ollama's Modelfile. Its TEMPLATE is Go's text/template; only one that renders what was trained is written."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

# By family: what a chat template contains, and the same text in Ollama's words.
_FAMILIES = (
    (
        "<|im_start|>",
        "{{ if .System }}<|im_start|>system\n{{ .System }}<|im_end|>\n{{ end }}"
        "<|im_start|>user\n{{ .Prompt }}<|im_end|>\n<|im_start|>assistant\n",
    ),
    (
        "<|start_header_id|>",
        "{{ if .System }}<|start_header_id|>system<|end_header_id|>\n\n{{ .System }}<|eot_id|>{{ end }}"
        "<|start_header_id|>user<|end_header_id|>\n\n{{ .Prompt }}<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
    ),
    (
        "### Instruction:",
        "{{ if .System }}{{ .System }}\n\n{{ end }}"
        "Below is an instruction that describes a task. Write a response that appropriately completes the request."
        "\n\n### Instruction:\n{{ .Prompt }}\n\n### Response:\n",
    ),
)
# A question that no template contains.
_PROBE = "finetune probe: 한국어?"


@dataclass(frozen=True)
class Modelfile:
    """What Ollama needs to know besides the file."""

    template: str | None
    system: str | None
    stops: tuple[str, ...]
    context_tokens: int


def render(template: str, system: str | None, prompt: str) -> str:
    """Return what Ollama makes of one of these templates; no other construct of Go is in them."""
    text = re.sub(r"{{ if \.System }}(.*?){{ end }}", r"\1" if system else "", template, flags=re.DOTALL)
    return text.replace("{{ .System }}", system or "").replace("{{ .Prompt }}", prompt)


def describe(
    rendered: Callable[[str], str], bos: str | None, system: str | None, stops: Sequence[str], context_tokens: int
) -> Modelfile:
    """Return the Modelfile's content.

    `rendered` gives the text that training used for a question. `bos` is the token that is added to a text, None if
    none is: it is left to Ollama, which adds it as the GGUF says. The template is None, which makes Ollama read the
    GGUF's own, if nothing in Ollama's words renders exactly that text.
    """
    wanted = rendered(_PROBE).removeprefix(bos or "")
    for template in (t for marker, t in _FAMILIES if marker in wanted):
        # Some chat templates bring a system prompt of their own where none is given.
        found = system or _system_in(template, wanted)
        if render(template, found, _PROBE) == wanted:
            return Modelfile(template, found, tuple(stops), context_tokens)
    template = _written_out(wanted, system)
    exact = "{{" not in wanted and render(template, system, _PROBE) == wanted
    return Modelfile(template if exact else None, system, tuple(stops), context_tokens)


def _written_out(wanted: str, system: str | None) -> str:
    """Return the text around the question as it is, with the place of the job's own system prompt if it has one."""
    before, _, after = wanted.rpartition(_PROBE)
    if system:
        before = before.replace(system.strip(), "{{ .System }}", 1)
    return f"{before}{{{{ .Prompt }}}}{after}"


def _system_in(template: str, wanted: str) -> str | None:
    with_system = render(template, "\0", _PROBE)
    before, _, after = with_system.partition("\0")
    if wanted.startswith(before) and wanted.endswith(after) and len(wanted) > len(before) + len(after):
        return wanted[len(before) : len(wanted) - len(after)]
    return None


def text(modelfile: Modelfile, gguf_name: str) -> str:
    """Return the Modelfile of one GGUF that lies beside it."""
    lines = [f"FROM ./{gguf_name}"]
    if modelfile.template is not None:
        lines.append(f"TEMPLATE {_quoted(modelfile.template)}")
    if modelfile.system:
        lines.append(f"SYSTEM {_quoted(modelfile.system)}")
    lines += [f"PARAMETER stop {_quoted(stop)}" for stop in modelfile.stops]
    lines.append(f"PARAMETER num_ctx {modelfile.context_tokens}")
    return "\n".join(lines) + "\n"


def _quoted(value: str) -> str:
    """Quote for a Modelfile: three quotes for several lines, which may hold anything but three quotes."""
    if "\n" in value or '"' in value:
        return '"""' + value.replace('"""', "'''") + '"""'
    return f'"{value}"'
