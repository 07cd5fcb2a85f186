"""Tokenizers of the families that are fine-tuned most, with their chat templates.

Real: SmolLM2's tokenizer and template; the templates of the other families, which the installed TRL has in
`trl/chat_templates`; every family's own control tokens, whether it adds a BOS, its stop tokens, and how it cuts text
before the merges. Built here: the vocabularies, which have one token for each byte and a few merges across places
where a question ends (a family's own has some 100,000 and a licence), and two templates that TRL has not. Mistral's is
written after its documented form `[INST] question[/INST] answer</s>`, with the system message in the last question as
Mistral does; Phi-4's after `<|im_start|>role<|im_sep|>content<|im_end|>`, turns with nothing between them, as
Unsloth's table of chat templates has it. Phi-4's tokenizer is cl100k's, which cuts text as Llama 3's does.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

from local_platform.smollm2 import model_dir

MISTRAL_JINJA = """{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"] + eos_token }}
    {%- else %}
        {{- raise_exception("Only user and assistant roles are supported") }}
    {%- endif %}
{%- endfor %}
"""
PHI_4_JINJA = """{%- for message in messages %}
    {%- if message["role"] in ("system", "user", "assistant") %}
        {{- "<|im_start|>" + message["role"] + "<|im_sep|>" + message["content"] + "<|im_end|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- "<|im_start|>assistant<|im_sep|>" }}
{%- endif %}
"""
# How Llama 3 and Qwen cut text; they differ in how many digits stay together.
_CUT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_LLAMA_3 = [
    *("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>"),
    *("<|eom_id|>", "<|eot_id|>", "<|python_tag|>"),
]
_QWEN = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|vision_start|>"]
_MISTRAL = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[TOOL_CALLS]"]
_GEMMA = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
_PHI_4 = ["<|endoftext|>", "<|fim_prefix|>", "<|im_start|>", "<|im_end|>", "<|im_sep|>", "<|dummy_85|>"]
_PHI = ["<unk>", "<s>", "<|endoftext|>", "<|assistant|>", "<|system|>", "<|end|>", "<|user|>"]


@dataclass(frozen=True)
class Family:
    """One family; `load` makes its tokenizer, chat template and all."""

    name: str
    load: Callable[[], Any]
    # Of its generation_config.json.
    stops: tuple[str, ...]
    kwargs: dict[str, str] = field(default_factory=dict)


def _template(name: str) -> str:
    return (files("trl") / "chat_templates" / f"{name}.jinja").read_text(encoding="utf-8")


def _finish(
    backend: Any,
    special: Sequence[str],
    *,
    bos: str | None,
    eos: str,
    pad: str,
    template: str | None,
    adds_bos: bool,
    rstrip: bool = False,
    marks: Sequence[str] = (),
) -> Any:
    from tokenizers import AddedToken
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    # As in Phi's files: what follows a mark of a turn loses its white space.
    stripped = {t for t in special if rstrip and t.startswith("<|")}
    backend.add_special_tokens([AddedToken(t, special=True, normalized=False, rstrip=t in stripped) for t in special])
    # Marks are one token each, but text may have them.
    backend.add_tokens([AddedToken(t, special=False, normalized=False) for t in marks])
    if adds_bos:
        backend.post_processor = TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, backend.token_to_id(bos))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=bos,
        eos_token=eos,
        pad_token=pad,
        chat_template=template,
        padding_side="right",
        clean_up_tokenization_spaces=False,
    )


def _byte_level(digits: str) -> Any:
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    # "\n\n", ":\n", ".\n", " th" and "an": each joins what belongs to a question with what follows.
    merges = [("Ċ", "Ċ"), (":", "Ċ"), (".", "Ċ"), ("t", "h"), ("Ġ", "th"), ("a", "n")]
    vocabulary = {t: i for i, t in enumerate([*alphabet, *(a + b for a, b in merges)])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_CUT % digits), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    return backend


def _byte_fallback(unknown: str, *, first_space: bool) -> Any:
    """SentencePiece's way: spaces are part of the text, and bytes stand in for rare characters."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

    letters = ["▁", "\n", *map(chr, range(33, 127))]
    merges = [("\n", "\n"), (":", "\n"), ("▁", "t"), ("▁t", "h"), ("a", "n"), ("▁", "▁")]
    tokens = [unknown, *(f"<0x{b:02X}>" for b in range(256)), *letters, *(a + b for a, b in merges)]
    vocabulary = {t: i for i, t in enumerate(tokens)}
    backend = Tokenizer(
        models.BPE(vocab=vocabulary, merges=merges, byte_fallback=True, unk_token=unknown, fuse_unk=True)
    )
    if first_space:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=False)
    else:
        backend.normalizer = normalizers.Replace(" ", "▁")
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return backend


def _llama_3(template: str | None, eos: str) -> Callable[[], Any]:
    return lambda: _finish(
        _byte_level("{1,3}"),
        _LLAMA_3,
        bos="<|begin_of_text|>",
        eos=eos,
        pad="<|end_of_text|>",
        template=template and _template(template),
        adds_bos=True,
    )


def _qwen(template: str, *marks: str) -> Callable[[], Any]:
    return lambda: _finish(
        _byte_level(""),
        _QWEN,
        bos=None,
        eos="<|im_end|>",
        pad="<|endoftext|>",
        template=_template(template),
        adds_bos=False,
        marks=marks,
    )


def _gemma(template: str) -> Callable[[], Any]:
    return lambda: _finish(
        _byte_fallback("<unk>", first_space=False),
        _GEMMA,
        bos="<bos>",
        eos="<eos>",
        pad="<pad>",
        template=_template(template),
        adds_bos=True,
    )


def _mistral() -> Any:
    return _finish(
        _byte_fallback("<unk>", first_space=True),
        _MISTRAL,
        bos="<s>",
        eos="</s>",
        pad="</s>",
        template=MISTRAL_JINJA,
        adds_bos=True,
    )


def _phi() -> Any:
    return _finish(
        _byte_fallback("<unk>", first_space=True),
        _PHI,
        bos="<s>",
        eos="<|endoftext|>",
        pad="<|endoftext|>",
        template=_template("phi3_5"),
        adds_bos=False,
        rstrip=True,
    )


def _phi_4() -> Any:
    return _finish(
        _byte_level("{1,3}"),
        _PHI_4,
        bos="<|endoftext|>",
        eos="<|im_end|>",
        pad="<|dummy_85|>",
        template=PHI_4_JINJA,
        adds_bos=False,
    )


def _smollm2() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model_dir(), local_files_only=True)


FAMILIES = (
    Family("llama-3", _llama_3("llama3", "<|eot_id|>"), ("<|end_of_text|>", "<|eot_id|>")),
    Family("llama-3.1", _llama_3("llama3_1", "<|eot_id|>"), ("<|end_of_text|>", "<|eom_id|>", "<|eot_id|>")),
    Family("llama-3-base", _llama_3(None, "<|end_of_text|>"), ("<|end_of_text|>",)),
    Family("mistral", _mistral, ("</s>",)),
    Family("qwen2.5", _qwen("qwen2_5"), ("<|im_end|>", "<|endoftext|>")),
    Family("qwen3", _qwen("qwen3", "<think>", "</think>"), ("<|im_end|>", "<|endoftext|>")),
    Family(
        "qwen3-without-thinking",
        _qwen("qwen3", "<think>", "</think>"),
        ("<|im_end|>", "<|endoftext|>"),
        {"enable_thinking": "false"},
    ),
    Family("gemma-2", _gemma("gemma"), ("<eos>", "<end_of_turn>")),
    Family("gemma-3", _gemma("gemma3"), ("<eos>", "<end_of_turn>")),
    Family("phi-3.5", _phi, ("<|endoftext|>", "<|assistant|>", "<|end|>")),
    Family("phi-4", _phi_4, ("<|endoftext|>", "<|im_end|>")),
    Family("smollm2", _smollm2, ("<|im_end|>",)),
)
