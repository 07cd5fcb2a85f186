"""The control tokens of a tokenizer, and those at which a model stops."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from finetune_trainer.data.rows.example import Message
from finetune_trainer.data.tokens.chat_template import ChatTemplate, RenderError, encode, render
from finetune_trainer.errors import ModelError


@dataclass(frozen=True)
class Stops:
    """Where generation ends."""

    ids: tuple[int, ...]
    strings: tuple[str, ...]


def special_tokens(tokenizer: Any) -> list[str]:
    """Return the texts that the tokenizer turns into control tokens wherever they stand."""
    added = (str(t.content) for t in tokenizer.added_tokens_decoder.values() if t.special)
    return sorted({*added, *(str(t) for t in tokenizer.all_special_tokens)})


def find_stops(tokenizer: Any, template: ChatTemplate, generation_eos: Sequence[int]) -> Stops:
    """Return the stop tokens: the tokenizer's, the generation config's, and the end of a turn of the chat template.

    Raises:
        ModelError, SettingsError: there is none, or the template does not take a question and an answer.
    """
    ids = [tokenizer.eos_token_id, *generation_eos]
    if template.kind == "Alpaca":
        require_eos(tokenizer)
    else:
        try:
            ids.append(_end_of_turn(tokenizer, template.jinja))
        except RenderError as error:
            raise template.error(error.what) from error
    known = tuple(sorted({i for i in ids if i is not None and 0 <= i < len(tokenizer)}))
    if not known:
        raise ModelError("the model names no token at which it stops (eos_token); correct tokenizer_config.json")
    return Stops(known, tuple(str(tokenizer.convert_ids_to_tokens(i)) for i in known))


def require_eos(tokenizer: Any) -> int:
    """Return the id of the end-of-text token.

    Raises:
        ModelError: the tokenizer has none.
    """
    if tokenizer.eos_token_id is None:
        raise ModelError("the model's tokenizer has no end-of-text token (eos_token); correct tokenizer_config.json")
    return int(tokenizer.eos_token_id)


def _end_of_turn(tokenizer: Any, jinja: str) -> int | None:
    question: Message = {"role": "user", "content": "a"}
    start = len(encode(tokenizer, render(tokenizer, jinja, [question], generate=True)))
    whole = render(tokenizer, jinja, [question, {"role": "assistant", "content": "b"}], generate=False)
    special = {i for i, t in tokenizer.added_tokens_decoder.items() if t.special}
    answer = encode(tokenizer, whole)[start:]
    # The first word of the answer may be a control token too, such as a thinking mark.
    after = answer[max((n for n, i in enumerate(answer) if i not in special and _says_b(tokenizer, i)), default=0) :]
    return next((i for i in after if i in special), None)


def _says_b(tokenizer: Any, token: int) -> bool:
    return "b" in tokenizer.decode([token])
