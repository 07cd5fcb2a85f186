"""From an example to token ids and to which of them are learned: the only tokenization of the training data."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from finetune_api.training_spec import Method
from finetune_trainer import methods
from finetune_trainer.data.rows.example import Example, Message
from finetune_trainer.data.tokens.chat_template import ChatTemplate, RenderError, adds_bos, encode, messages_of, render
from finetune_trainer.data.tokens.stop_tokens import Stops, require_eos, special_tokens
from finetune_trainer.errors import ModelError, SettingsError, StageError
from finetune_trainer.methods.interface import Answers
from finetune_trainer.methods.rows import Row


class _Fault(Exception):  # noqa: N818 - it never leaves this module
    """Why a conversation cannot be learned, worded for a template and for a row."""

    def __init__(self, of_template: str, of_row: str) -> None:
        super().__init__(of_template)
        self.of_template = of_template
        self.of_row = of_row


class Encoder:
    """Renders and tokenizes examples in one way."""

    def __init__(
        self,
        tokenizer: Any,
        template: ChatTemplate,
        stops: Stops,
        *,
        method: Method,
        system_prompt: str | None,
        maximum: int,
        responses_only: bool,
    ) -> None:
        """Render a first conversation.

        Raises:
            ModelError, SettingsError: nothing can be learned with this template, or it has no place for the system
                prompt.
        """
        self.tokenizer = tokenizer
        self._template = template
        self._stops = frozenset(stops.ids)
        self.method = methods.of(method)
        self._system_prompt = system_prompt
        self.maximum = maximum
        self.responses_only = responses_only
        self._special = re.compile("|".join(map(re.escape, special_tokens(tokenizer))) or r"(?!)")
        self._try_template()

    def encode(self, example: Example) -> Row | str:
        """Return the row of the method, or the reason why the example is invalid, without its text."""
        if fault := self._control_token(example):
            return fault
        messages = messages_of(example, self._template.kind, self._system_prompt) if example.messages else []
        try:
            return self.method.encode(example, _Conversation(self, messages))
        except _Fault as fault_found:
            return fault_found.of_row

    def plain_text(self, text: str) -> tuple[list[int], list[int]]:
        """See `methods.interface.Rendering`."""
        start = [self.tokenizer.bos_token_id] if adds_bos(self.tokenizer) else []
        return start, [*self.tokenizer(text, add_special_tokens=False)["input_ids"], require_eos(self.tokenizer)]

    def spans(self, messages: Sequence[Message], *, last_only: bool = False) -> tuple[list[int], list[tuple[int, int]]]:
        """Return the ids up to the last stop token, and (start, end) of each answer including its stop token.

        An answer is learned as the model will give it: an earlier one that the template shows in another way by then,
        as those of thinking models without their thinking, is context of the last one only.
        """
        *earlier, last = [turn for turn, m in enumerate(messages) if m["role"] == "assistant"]
        whole = self._render(messages, generate=False)
        self._require_contents([m for turn, m in enumerate(messages) if turn not in earlier], whole)
        start, ids = self._join(self._render(messages[:last], generate=True), whole)
        end = self._end(ids, start)
        if end is None:
            what = "does not end an answer with a token at which the model stops"
            raise _Fault(what, f"{self._template.subject} {what}")
        spans = []
        for turn in [] if last_only else earlier:
            span = self._find(messages[:turn], whole, ids)
            if span is not None and self._is_shown_as_given(messages[: turn + 1], whole, ids[: span[1]]):
                self._require_contents([messages[turn]], whole)
                spans.append(span)
        # What some templates write after the last stop token is never generated.
        return ids[:end], [*spans, (start, end)]

    def _join(self, question: str, whole: str) -> tuple[int, list[int]]:
        """Return where the answer begins in `whole`, and its ids: those that a server has for `question` come first."""
        if not whole.startswith(question):
            raise _Fault(
                "does not keep what it showed before an answer once the answer is there, so the answers cannot be "
                "told from the questions",
                f"{self._template.subject} does not keep what it showed before the answer once the answer is there, "
                "as with a <think> part in it where thinking is off; leave that out or correct "
                "dataset.chatTemplateKwargs",
            )
        prompt, ids = encode(self.tokenizer, question), encode(self.tokenizer, whole)
        if ids[: len(prompt)] != prompt:
            # The end of the question and the beginning of the answer, such as line breaks of both, would be one token.
            ids = [*prompt, *self._continuation(whole[len(question) :])]
        return len(prompt), ids

    def _continuation(self, text: str) -> list[int]:
        """Return the ids of text that does not begin where a text begins; a control token before it sees to that."""
        anchor = min(self._stops)
        ids: list[int] = self.tokenizer(self.tokenizer.convert_ids_to_tokens(anchor) + text, add_special_tokens=False)[
            "input_ids"
        ]
        if ids[0] != anchor or self.tokenizer.decode(ids[1:], clean_up_tokenization_spaces=False) != text:
            what = "ends a question in the middle of a token"
            raise _Fault(what, f"{self._template.subject} {what}; remove white space where the answer begins")
        return ids[1:]

    def _find(self, before: Sequence[Message], whole: str, ids: Sequence[int]) -> tuple[int, int] | None:
        """Return (start, end) of the answer after `before`; None if it does not follow what a server shows for that."""
        question = self._render(before, generate=True)
        if not whole.startswith(question):
            return None
        prompt = encode(self.tokenizer, question)
        start = len(prompt)
        if ids[:start] != prompt:
            return None
        end = self._end(ids, start)
        return None if end is None else (start, end)

    def _end(self, ids: Sequence[int], start: int) -> int | None:
        return next((i + 1 for i in range(start, len(ids)) if ids[i] in self._stops), None)

    def _is_shown_as_given(self, messages: Sequence[Message], whole: str, ids: Sequence[int]) -> bool:
        """Whether `ids`, up to the stop token of the last message, are what they are when nothing follows."""
        given = self._render(messages, generate=False)
        return whole.startswith(given) or encode(self.tokenizer, given)[: len(ids)] == ids

    def _render(self, messages: Sequence[Message], *, generate: bool) -> str:
        try:
            return render(self.tokenizer, self._template.jinja, messages, generate=generate)
        except RenderError as error:
            roles = ", ".join(m["role"] for m in messages)
            # The template's own words may hold the row's text.
            raise _Fault(error.what, f"{self._template.subject} refuses its conversation of {roles}") from error

    def _require_contents(self, messages: Sequence[Message], whole: str) -> None:
        # Templates may trim what they show or move its lines.
        shown = _squeeze(whole)
        for message in messages:
            if _squeeze(message["content"]) not in shown:
                reason = f"does not show the whole {message['role']} message"
                raise _Fault(reason, f"{self._template.subject} {reason}")

    def _control_token(self, example: Example) -> str | None:
        for text in _texts(example):
            if found := self._special.search(text):
                return f"it contains {found[0]}, which is a special token of the model"
        return None

    def _try_template(self) -> None:
        asked: Message = {"role": "user", "content": "What is a squat?"}
        answered: Message = {"role": "assistant", "content": "An exercise for the legs."}
        try:
            ids, _ = self.spans([asked, answered])
        except _Fault as fault:
            raise self._template.error(fault.of_template) from fault
        bos = self.tokenizer.bos_token_id
        if bos is not None and ids[:2] == [bos, bos]:
            raise self._template.error("begins with the beginning-of-text token twice")
        if self._system_prompt:
            try:
                self.spans([{"role": "system", "content": self._system_prompt}, asked, answered])
            except _Fault as fault:
                raise self._no_system(fault) from fault

    def _no_system(self, fault: _Fault) -> StageError:
        sentence = (
            f"{self._template.subject} has no place for dataset.systemPrompt: it {fault.of_template}; leave that out"
        )
        if self._template.kind == "Custom":
            return SettingsError(f"{sentence} or show the system message")
        return ModelError(f"{sentence} or set dataset.promptTemplate to Alpaca")


class _Conversation:
    """One example's messages: see `methods.interface.Rendering`."""

    def __init__(self, encoder: Encoder, messages: Sequence[Message]) -> None:
        self._encoder = encoder
        self._messages = messages

    @property
    def maximum(self) -> int:
        return self._encoder.maximum

    @property
    def responses_only(self) -> bool:
        return self._encoder.responses_only

    @property
    def bos_token_id(self) -> int | None:
        bos: int | None = self._encoder.tokenizer.bos_token_id
        return bos

    def answers(self) -> Answers:
        ids, spans = self._encoder.spans(self._messages)
        return Answers(ids, spans, sum(m["role"] == "assistant" for m in self._messages) - len(spans))

    def last_answer(self, instead: str | None = None) -> tuple[list[int], list[int]]:
        messages = list(self._messages)
        if instead is not None:
            messages[-1] = {"role": "assistant", "content": instead}
        ids, spans = self._encoder.spans(messages, last_only=True)
        start = spans[-1][0]
        return ids[:start], ids[start:]

    def plain_text(self, text: str) -> tuple[list[int], list[int]]:
        return self._encoder.plain_text(text)


def _texts(example: Example) -> Iterator[str]:
    yield from (message["content"] for message in example.messages)
    yield from (text for text in (example.context, example.rejected, example.text) if text)


def _squeeze(text: str) -> str:
    return "".join(text.split())
