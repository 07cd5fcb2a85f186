"""From an example to token ids and to which of them are learned: the only tokenization of the training data."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from finetune_trainer.data.example import Example, Message
from finetune_trainer.data.template import Template, encode, render
from finetune_trainer.errors import ModelError


@dataclass(frozen=True)
class TokenizedRow:
    """One row as train reads it."""

    row_id: int
    input_ids: list[int]
    # 1: the token is learned.
    completion_mask: list[int]
    truncated: bool


@dataclass(frozen=True)
class Stops:
    """Where generation ends."""

    ids: tuple[int, ...]
    strings: tuple[str, ...]


class Encoder:
    """Renders and tokenizes examples in one way."""

    def __init__(
        self,
        tokenizer: Any,
        template: Template,
        stops: Stops,
        *,
        system_prompt: str | None,
        maximum: int,
        responses_only: bool,
    ) -> None:
        self._tokenizer = tokenizer
        self._template = template
        self._stops = frozenset(stops.ids)
        self._system_prompt = system_prompt
        self._maximum = maximum
        self._responses_only = responses_only
        self._special = special_tokens(tokenizer)

    def encode(self, example: Example) -> TokenizedRow | str:
        """Return the row, or the reason why it is invalid.

        Raises:
            ModelError: the chat template does not take the example.
        """
        messages = messages_of(example, self._template, self._system_prompt)
        for message in messages:
            for token in self._special:
                if token in message["content"]:
                    return f"it contains {token}, which is a special token of the model"
        ids, spans = self._spans(messages)
        if spans[0][0] >= self._maximum:
            return (
                f"its question alone has {spans[0][0]} tokens, and model.maxSequenceLength is {self._maximum}; "
                "shorten it or raise that"
            )
        mask = [0] * len(ids)
        for start, end in spans:
            mask[start:end] = [1] * (end - start)
        if not self._responses_only:
            mask = [1] * len(ids)
            if ids[0] == self._tokenizer.bos_token_id:
                mask[0] = 0
        limit = self._maximum
        return TokenizedRow(example.row_id, ids[:limit], mask[:limit], len(ids) > limit)

    def _spans(self, messages: Sequence[Message]) -> tuple[list[int], list[tuple[int, int]]]:
        """Return the ids, and (start, end) of each answer including its stop token."""
        text = render(self._tokenizer, self._template, messages, generate=False)
        ids = encode(self._tokenizer, text)
        spans = []
        for turn, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            question = render(self._tokenizer, self._template, messages[:turn], generate=True)
            prompt = encode(self._tokenizer, question)
            if not text.startswith(question) or ids[: len(prompt)] != prompt:
                raise ModelError(
                    "the model's chat template does not keep what it showed before an answer once the answer is there"
                    f"{' (it rewrites earlier turns)' if turn > 2 else ''}, so the answers cannot be told from the "
                    "questions; set dataset.promptTemplate to Alpaca"
                )
            end = next((i + 1 for i in range(len(prompt), len(ids)) if ids[i] in self._stops), None)
            if end is None:
                raise ModelError(
                    "the model's chat template does not end an answer with a token at which the model stops; "
                    "set dataset.promptTemplate to Alpaca"
                )
            spans.append((len(prompt), end))
        # What some templates write after the last stop token is never generated.
        return ids[: spans[-1][1]], spans


def messages_of(example: Example, template: Template, system_prompt: str | None) -> list[Message]:
    """Return the messages to render: the row's own system message wins over the job's."""
    messages = list(example.messages)
    if example.context:
        messages[0] = {"role": "user", "content": question_of(example, template)}
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


def special_tokens(tokenizer: Any) -> list[str]:
    """Return the texts that the tokenizer turns into control tokens wherever they stand."""
    added = (str(t.content) for t in tokenizer.added_tokens_decoder.values() if t.special)
    return sorted({*added, *(str(t) for t in tokenizer.all_special_tokens)})


def find_stops(tokenizer: Any, template: Template, generation_eos: Sequence[int]) -> Stops:
    """Return the stop tokens: the tokenizer's, the generation config's, and the end of a turn of the chat template.

    Raises:
        ModelError: there is none.
    """
    ids = [tokenizer.eos_token_id, *generation_eos]
    if template == "Model":
        ids.append(_end_of_turn(tokenizer))
    elif tokenizer.eos_token_id is None:
        raise ModelError("the model's tokenizer has no end-of-text token (eos_token); correct tokenizer_config.json")
    known = tuple(sorted({i for i in ids if i is not None and 0 <= i < len(tokenizer)}))
    if not known:
        raise ModelError("the model names no token at which it stops (eos_token); correct tokenizer_config.json")
    return Stops(known, tuple(str(tokenizer.convert_ids_to_tokens(i)) for i in known))


def _end_of_turn(tokenizer: Any) -> int | None:
    question: Message = {"role": "user", "content": "a"}
    start = len(encode(tokenizer, render(tokenizer, "Model", [question], generate=True)))
    whole = render(tokenizer, "Model", [question, {"role": "assistant", "content": "b"}], generate=False)
    special = {i for i, t in tokenizer.added_tokens_decoder.items() if t.special}
    answer = encode(tokenizer, whole)[start:]
    # The first word of the answer may be a control token too, such as a thinking mark.
    after = answer[max((n for n, i in enumerate(answer) if i not in special and _says_b(tokenizer, i)), default=0) :]
    return next((i for i in after if i in special), None)


def _says_b(tokenizer: Any, token: int) -> bool:
    return "b" in tokenizer.decode([token])
