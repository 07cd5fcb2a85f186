"""Token ids and masks on a real tokenizer. The ids were read against the rendered text once, by hand."""

from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from finetune_trainer.data.rows.example import Example, Message
from finetune_trainer.data.tokens.chat_template import ALPACA_JINJA, ChatTemplate, Template, question_of, render_prompt
from finetune_trainer.data.tokens.encoder import Encoder
from finetune_trainer.data.tokens.stop_tokens import find_stops
from finetune_trainer.methods.sft import SFTRow

START, END, NEWLINE = 1, 2, 198
SYSTEM, USER, ASSISTANT = [9690], [4093], [520, 9531]
DEFAULT_SYSTEM = [2683, 359, 253, 5356, 5646, 11173, 3365, 3511, 308, 34519, 28, 7018, 411, 407, 19712, 8182]
HELLO = [183, 239, 226, 182, 223, 239]  # 안녕
PREAMBLE = [19798, 314, 354, 5785, 338, 6601, 253, 3856, 30, 9517, 253, 2426, 338, 13674, 32873, 260, 3116, 30]
INSTRUCTION, INPUT, RESPONSE = [3757, 20880, 42], [3757, 18100, 42], [3757, 14212, 42]
EMPTY_LINE = [NEWLINE, NEWLINE]


def _turn(role: list[int], content: list[int]) -> list[int]:
    return [START, *role, NEWLINE, *content, END, NEWLINE]


def _opened(role: list[int]) -> list[int]:
    return [START, *role, NEWLINE]


def _example(*contents: str, system: str | None = None, context: str = "") -> Example:
    messages: list[Message] = [{"role": "system", "content": system}] if system else []
    for number, content in enumerate(contents):
        messages.append({"role": "assistant" if number % 2 else "user", "content": content})
    return Example("s", 1, 7, tuple(messages), context)


def _template(tokenizer: Any, kind: Template) -> ChatTemplate:
    return ChatTemplate(kind, ALPACA_JINJA if kind == "Alpaca" else tokenizer.chat_template)


def _encode(tokenizer: Any, kind: Template, example: Example, **settings: Any) -> SFTRow:
    chosen = {"method": "SFT", "system_prompt": None, "maximum": 256, "responses_only": True} | settings
    template = _template(tokenizer, kind)
    row = Encoder(tokenizer, template, find_stops(tokenizer, template, [2]), **chosen).encode(example)
    assert isinstance(row, SFTRow)
    return row


def _masked(*parts: tuple[int, list[int]]) -> tuple[list[int], list[int]]:
    return [i for _, ids in parts for i in ids], [m for m, ids in parts for _ in ids]


def test_chat_template(tokenizer: Any) -> None:
    row = _encode(tokenizer, "Model", _example("Hi 12", "안녕"))
    prompt = [*_turn(SYSTEM, DEFAULT_SYSTEM), *_turn(USER, [26843, 216, 33, 34]), *_opened(ASSISTANT)]
    assert (row.input_ids, row.completion_mask) == _masked((0, prompt), (1, [*HELLO, END]))


def test_every_answer_of_a_conversation_is_learned(tokenizer: Any) -> None:
    row = _encode(tokenizer, "Model", _example("a", "b", "c", "d", system="S"))
    assert (row.input_ids, row.completion_mask) == _masked(
        (0, [*_turn(SYSTEM, [67]), *_turn(USER, [81]), *_opened(ASSISTANT)]),
        (1, [82, END]),
        (0, [NEWLINE, *_turn(USER, [83]), *_opened(ASSISTANT)]),
        (1, [84, END]),
    )


def test_alpaca(tokenizer: Any) -> None:
    row = _encode(tokenizer, "Alpaca", _example("Hi 12", "안녕"))
    question = [*INSTRUCTION, NEWLINE, 26843, 216, 33, 34, *EMPTY_LINE, *RESPONSE, NEWLINE]
    assert (row.input_ids, row.completion_mask) == _masked((0, [*PREAMBLE, *EMPTY_LINE, *question]), (1, [*HELLO, END]))


def test_alpaca_with_input(tokenizer: Any) -> None:
    row = _encode(tokenizer, "Alpaca", _example("Sum", "3", context="1 2"))
    asked = [*INSTRUCTION, NEWLINE, 13764, *EMPTY_LINE, *INPUT, NEWLINE, 33, 216, 34]
    prompt = [*PREAMBLE, *EMPTY_LINE, *asked, *EMPTY_LINE, *RESPONSE, NEWLINE]
    assert (row.input_ids, row.completion_mask) == _masked((0, prompt), (1, [35, END]))


def test_alpaca_conversation(tokenizer: Any) -> None:
    row = _encode(tokenizer, "Alpaca", _example("a", "b", "c", "d", system="S"))
    ask = [*RESPONSE, NEWLINE]
    assert (row.input_ids, row.completion_mask) == _masked(
        (0, [67, *EMPTY_LINE, *PREAMBLE, *EMPTY_LINE, *INSTRUCTION, NEWLINE, 81, *EMPTY_LINE, *ask]),
        (1, [82, END]),
        (0, [*EMPTY_LINE, *INSTRUCTION, NEWLINE, 83, *EMPTY_LINE, *ask]),
        (1, [84, END]),
    )


def test_the_job_s_system_prompt_is_for_rows_without_their_own(tokenizer: Any) -> None:
    mine = _encode(tokenizer, "Model", _example("a", "b", system="S"), system_prompt="T")
    assert mine.input_ids[:6] == _turn(SYSTEM, [67])
    other = _encode(tokenizer, "Model", _example("a", "b"), system_prompt="S")
    assert other.input_ids == mine.input_ids


def test_without_responses_only_everything_is_learned_but_the_beginning_of_text(tokenizer: Any) -> None:
    row = _encode(tokenizer, "Model", _example("a", "b", system="S"), responses_only=False)
    assert row.completion_mask == [0] + [1] * (len(row.input_ids) - 1)


def test_long_answers_are_cut_and_reported(tokenizer: Any) -> None:
    row = _encode(tokenizer, "Model", _example("a", "word " * 300, system="S"), maximum=64)
    assert (len(row.input_ids), row.truncated, sum(row.completion_mask)) == (64, True, 48)


def test_row_keeps_its_number(tokenizer: Any) -> None:
    assert _encode(tokenizer, "Model", _example("a", "b")).row_id == 7


TEXTS = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Cn", "Co"]), min_size=1, max_size=40
).filter(lambda t: t.strip() == t and "<|" not in t and not t.startswith("<"))


@settings(max_examples=60, deadline=None)
@given(question=TEXTS, answer=TEXTS, template=st.sampled_from(["Model", "Alpaca"]))
def test_what_a_server_sends_is_the_beginning_of_what_was_trained(
    tokenizer: Any, question: str, answer: str, template: Template
) -> None:
    row = _encode(tokenizer, template, _example(question, answer), maximum=2048)
    text = render_prompt(tokenizer, _template(tokenizer, template).jinja, None, question)
    prompt = tokenizer(text, add_special_tokens=False)["input_ids"]
    assume(tokenizer.unk_token_id not in row.input_ids)  # a few rare characters are not in this vocabulary
    assert row.input_ids[: len(prompt)] == prompt
    assert row.completion_mask == [0] * len(prompt) + [1] * (len(row.input_ids) - len(prompt))
    assert tokenizer.decode(row.input_ids[len(prompt) : -1], clean_up_tokenization_spaces=False) == answer
    assert row.input_ids[-1] == END


@pytest.mark.parametrize(("template", "expected"), [("Model", "Sum\n\n1 2"), ("Alpaca", "Sum\n\n### Input:\n1 2")])
def test_question_includes_the_input_as_the_template_has_it(template: Template, expected: str) -> None:
    assert question_of(_example("Sum", "3", context="1 2"), template) == expected


def test_stops_are_those_of_tokenizer_generation_config_and_template(tokenizer: Any) -> None:
    assert find_stops(tokenizer, _template(tokenizer, "Alpaca"), [0, 10**9]).ids == (0, END)
    assert find_stops(tokenizer, _template(tokenizer, "Model"), []).strings == ("<|im_end|>",)
