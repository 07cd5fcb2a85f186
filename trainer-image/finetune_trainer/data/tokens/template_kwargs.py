"""`dataset.chatTemplateKwargs`: values that a chat template reads, written into the template itself.

No server knows the values that a model was trained with, and some pass values of their own (llama.cpp's server sets
`enable_thinking` to true). So they are set where the template begins, over anything that is passed.
"""

import json
import re
from collections.abc import Mapping

from finetune_trainer.errors import SettingsError

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_WHOLE_NUMBER = re.compile(r"[+-]?[0-9]+")
# What the renderer itself gives a template.
_RESERVED = {
    *("messages", "tools", "documents", "add_generation_prompt", "continue_final_message"),
    *("date_string", "strftime_now", "raise_exception"),
    *("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"),
    *("loop", "namespace", "range", "dict", "lipsum", "cycler", "joiner", "self", "super", "caller"),
    *("true", "false", "none", "True", "False", "None", "and", "or", "not", "if", "else", "elif", "for", "in", "is"),
    *("set", "block", "macro", "import", "from"),
}


def write_into(jinja: str, kwargs: Mapping[str, str]) -> str:
    """Return the template with `kwargs` set in it.

    Raises:
        SettingsError: a name is not one that can be set, or the template does not read it.
    """
    for name in kwargs:
        _check(name, jinja)
    return "".join(f"{{% set {name} = {literal(value)} %}}" for name, value in sorted(kwargs.items())) + jinja


def literal(value: str) -> str:
    """Return a value as Jinja has it: true, false and whole numbers as such, everything else as text."""
    if value.lower() in ("true", "false"):
        return value.lower()
    if _WHOLE_NUMBER.fullmatch(value):
        return str(int(value))
    # Jinja's escapes are Python's, of which JSON's are a part.
    return json.dumps(value, ensure_ascii=False)


def _check(name: str, jinja: str) -> None:
    if not _NAME.fullmatch(name):
        raise SettingsError(
            f'dataset.chatTemplateKwargs: "{name}" is not a name that a chat template can read; '
            "use letters, digits and _"
        )
    if name in _RESERVED:
        raise SettingsError(
            f"dataset.chatTemplateKwargs: {name} is set by the trainer and cannot be given; leave it out"
        )
    if not re.search(rf"\b{name}\b", jinja):
        raise SettingsError(
            f"dataset.chatTemplateKwargs: the chat template does not read {name}; correct the name or leave it out"
        )
