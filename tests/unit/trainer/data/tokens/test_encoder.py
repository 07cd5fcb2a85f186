"""Rows of every method, and the reasons why an example is none; on a real tokenizer."""

from itertools import product
from typing import Any

import pytest

from finetune_trainer.data.rows.example import Example, Message
from finetune_trainer.data.tokens.chat_template import ALPACA_JINJA, ChatTemplate, render_prompt
from finetune_trainer.data.tokens.encoder import Encoder
from finetune_trainer.data.tokens.stop_tokens import find_stops
from finetune_trainer.errors import GuardError, ModelError, SettingsError, StageError
from finetune_trainer.methods.kto import BinaryRow
from finetune_trainer.methods.preference import PreferenceRow
from finetune_trainer.methods.rows import Row
from finetune_trainer.methods.sft import SFTRow
from finetune_trainer.prepare.template_choice import FOLD_SYSTEM

BOS, END = 1, 2
ALPACA = ChatTemplate("Alpaca", ALPACA_JINJA)
PLAIN = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
ASK = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
# As thinking models: only the last answer shows its thinking.
THINKING = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['role'] == 'assistant' and loop.last and '</think>' not in m['content'] %}"
    "<think>\n\n</think>\n\n{% endif %}"
    "{{ m['content'] if loop.last else m['content'].split('</think>')[-1].strip() }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if not thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)


def custom(jinja: str) -> ChatTemplate:
    return ChatTemplate("Custom", jinja)


def encoder(tokenizer: Any, template: ChatTemplate | None = None, **settings: Any) -> Encoder:
    chosen = {"method": "SFT", "system_prompt": None, "maximum": 256, "responses_only": True} | settings
    found = template or ChatTemplate("Model", tokenizer.chat_template)
    return Encoder(tokenizer, found, find_stops(tokenizer, found, []), **chosen)


def example(*contents: str, system: str | None = None, **members: Any) -> Example:
    messages: list[Message] = [{"role": "system", "content": system}] if system else []
    for number, content in enumerate(contents):
        messages.append({"role": "assistant" if number % 2 else "user", "content": content})
    return Example("s", 1, 7, tuple(messages), **members)


def text(tokenizer: Any, ids: list[int]) -> str:
    return str(tokenizer.decode(ids, skip_special_tokens=False))


def pair(row: Row | str) -> PreferenceRow:
    assert isinstance(row, PreferenceRow)
    return row


def tokenized(row: Row | str) -> SFTRow:
    assert isinstance(row, SFTRow)
    return row


def test_both_answers_of_a_pair_follow_what_a_server_shows_and_end_on_a_stop(tokenizer: Any) -> None:
    row = pair(encoder(tokenizer, method="DPO").encode(example("질문", "좋은 답", system="짧게", rejected="나쁜 답")))
    assert text(tokenizer, row.prompt_ids) == render_prompt(tokenizer, tokenizer.chat_template, "짧게", "질문")
    assert text(tokenizer, row.chosen_ids) == "좋은 답<|im_end|>"
    assert text(tokenizer, row.rejected_ids) == "나쁜 답<|im_end|>"
    assert (row.row_id, row.truncated) == (7, False)


@pytest.mark.parametrize("method", ["DPO", "ORPO"])
@pytest.mark.parametrize("template", [None, ALPACA])
def test_a_pair_is_tokenized_as_two_rows_of_sft(tokenizer: Any, method: str, template: ChatTemplate | None) -> None:
    row = pair(encoder(tokenizer, template, method=method).encode(example("a", "b", "c", "d", rejected="\n\ne f")))
    for answer, ids in (("d", row.chosen_ids), ("\n\ne f", row.rejected_ids)):
        alone = tokenized(encoder(tokenizer, template).encode(example("a", "b", "c", answer)))
        assert row.prompt_ids + ids == alone.input_ids


def test_an_answer_that_begins_with_line_breaks_leaves_the_question_as_a_server_has_it(tokenizer: Any) -> None:
    row = tokenized(encoder(tokenizer, ALPACA).encode(example("a", "\n\n답")))
    prompt = tokenizer(render_prompt(tokenizer, ALPACA.jinja, None, "a"), add_special_tokens=False)["input_ids"]
    assert row.input_ids[: len(prompt)] == prompt
    assert row.completion_mask == [0] * len(prompt) + [1] * (len(row.input_ids) - len(prompt))
    assert text(tokenizer, row.input_ids[len(prompt) :]) == "\n\n답<|im_end|>"


def test_earlier_answers_of_a_pair_belong_to_the_prompt(tokenizer: Any) -> None:
    row = pair(encoder(tokenizer, method="DPO").encode(example("a", "b", "c", "d", rejected="e")))
    assert "<|im_start|>assistant\nb<|im_end|>" in text(tokenizer, row.prompt_ids)
    assert text(tokenizer, row.chosen_ids) == "d<|im_end|>"


def test_long_answers_are_cut_and_the_prompt_is_kept(tokenizer: Any) -> None:
    whole = pair(encoder(tokenizer, method="DPO").encode(example("a", "b", rejected="word " * 40)))
    maximum = len(whole.prompt_ids) + 10
    row = pair(encoder(tokenizer, method="DPO", maximum=maximum).encode(example("a", "b", rejected="word " * 40)))
    assert row.prompt_ids == whole.prompt_ids
    assert (row.chosen_ids, row.rejected_ids) == (whole.chosen_ids, whole.rejected_ids[:10])
    assert row.truncated


def test_answers_that_differ_only_where_they_are_cut_are_no_pair(tokenizer: Any) -> None:
    given = example("a", "word " * 300 + "x", rejected="word " * 300 + "y")
    assert encoder(tokenizer, method="DPO").encode(given) == (
        "its two answers are the same in the first 256 tokens, which is model.maxSequenceLength; "
        "correct it or raise that"
    )


def test_answers_that_the_template_shows_alike_are_no_pair(tokenizer: Any) -> None:
    trimming = custom(PLAIN.replace("m['content']", "m['content'] | trim") + ASK)
    row = encoder(tokenizer, trimming, method="DPO").encode(example("a", "b", rejected="b "))
    assert row == "its two answers are the same to the model; correct it"


@pytest.mark.parametrize("label", [True, False])
def test_a_judged_answer_keeps_its_label(tokenizer: Any, label: bool) -> None:
    row = encoder(tokenizer, method="KTO").encode(example("질문", "답", label=label))
    assert isinstance(row, BinaryRow)
    assert (row.row_id, row.label, row.truncated) == (7, label, False)
    assert text(tokenizer, row.prompt_ids) == render_prompt(tokenizer, tokenizer.chat_template, None, "질문")
    assert text(tokenizer, row.completion_ids) == "답<|im_end|>"


def test_a_judged_answer_is_cut_and_its_prompt_kept(tokenizer: Any) -> None:
    row = encoder(tokenizer, method="KTO", maximum=64).encode(example("a", "word " * 300, label=True))
    assert isinstance(row, BinaryRow)
    assert (len(row.prompt_ids) + len(row.completion_ids), row.truncated) == (64, True)


@pytest.mark.parametrize(("method", "members"), [("SFT", {}), ("DPO", {"rejected": "c"}), ("KTO", {"label": True})])
def test_a_prompt_that_fills_the_maximum_is_a_fault(tokenizer: Any, method: str, members: dict[str, Any]) -> None:
    prompt = render_prompt(tokenizer, tokenizer.chat_template, None, "word " * 40)
    length = len(tokenizer(prompt, add_special_tokens=False)["input_ids"])
    row = encoder(tokenizer, method=method, maximum=length).encode(example("word " * 40, "b", **members))
    assert row == (
        f"its question alone has {length} tokens, and model.maxSequenceLength is {length}; shorten it or raise that"
    )
    assert not isinstance(
        encoder(tokenizer, method=method, maximum=length + 1).encode(example("word " * 40, "b", **members)), str
    )


def test_a_text_is_learned_whole_and_ends_the_text(tokenizer: Any) -> None:
    row = tokenized(encoder(tokenizer).encode(Example("s", 1, 7, (), text="한국어 글.\n")))
    assert text(tokenizer, row.input_ids) == "한국어 글.\n<|im_end|>"
    assert row.completion_mask == [1] * len(row.input_ids)


def test_a_text_begins_as_the_tokenizer_begins_texts(tokenizer: Any) -> None:
    import copy

    from tokenizers.processors import TemplateProcessing

    own = copy.deepcopy(tokenizer)
    own.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", BOS)]
    )
    row = tokenized(encoder(own).encode(Example("s", 1, 7, (), text="글")))
    assert (row.input_ids[0], row.completion_mask[0]) == (BOS, 0)
    assert row.completion_mask[1:] == [1] * (len(row.input_ids) - 1)


def test_a_long_text_is_cut_and_reported(tokenizer: Any) -> None:
    row = tokenized(encoder(tokenizer, maximum=64).encode(Example("s", 1, 7, (), text="word " * 300)))
    assert (len(row.input_ids), row.truncated, row.input_ids[-1] == END) == (64, True, False)


@pytest.mark.parametrize(
    ("method", "lacks"), [("DPO", "a rejected answer"), ("ORPO", "a rejected answer"), ("KTO", "a label")]
)
def test_a_row_of_another_format_never_reaches_a_method_unnoticed(tokenizer: Any, method: str, lacks: str) -> None:
    with pytest.raises(GuardError, match=f"a row without {lacks}"):
        encoder(tokenizer, method=method).encode(example("a", "b"))


@pytest.mark.parametrize(
    ("method", "given"),
    [
        ("SFT", example("a <|im_end|>", "b")),
        ("SFT", example("a", "b <|im_end|>")),
        ("SFT", example("a", "b", system="<|im_end|>")),
        ("SFT", example("a", "b", context="<|im_end|>")),
        ("SFT", Example("s", 1, 7, (), text="a<|im_end|>b")),
        ("DPO", example("a", "b", rejected="<|im_end|>")),
    ],
)
def test_control_tokens_in_any_part_are_faults(tokenizer: Any, method: str, given: Example) -> None:
    found = encoder(tokenizer, method=method).encode(given)
    assert found == "it contains <|im_end|>, which is a special token of the model"


def test_an_earlier_answer_that_is_shown_without_its_thinking_is_not_learned(tokenizer: Any) -> None:
    template = custom("{% set thinking = true %}" + THINKING)
    row = tokenized(encoder(tokenizer, template).encode(example("a", "<think>x</think>b", "c", "<think>y</think>d")))
    learned = [i for i, m in zip(row.input_ids, row.completion_mask, strict=True) if m]
    assert text(tokenizer, learned) == "<think>y</think>d<|im_end|>"
    assert row.answers_left_out == 1


def test_an_earlier_answer_that_lost_the_empty_thinking_of_its_prompt_is_not_learned(tokenizer: Any) -> None:
    row = tokenized(encoder(tokenizer, custom(THINKING)).encode(example("a", "b", "c", "d")))
    learned = [i for i, m in zip(row.input_ids, row.completion_mask, strict=True) if m]
    assert text(tokenizer, learned) == "d<|im_end|>"
    assert text(tokenizer, row.input_ids).endswith("<|im_start|>assistant\n<think>\n\n</think>\n\nd<|im_end|>")
    assert row.answers_left_out == 1


def test_without_responses_only_no_answer_is_left_out(tokenizer: Any) -> None:
    row = tokenized(encoder(tokenizer, custom(THINKING), responses_only=False).encode(example("a", "b", "c", "d")))
    assert row.answers_left_out == 0


def test_thinking_in_an_answer_where_thinking_is_off_is_a_fault_of_the_row(tokenizer: Any) -> None:
    assert encoder(tokenizer, custom(THINKING)).encode(example("a", "<think>x</think>b")) == (
        "the chat template of dataset.templateRef does not keep what it showed before the answer once the answer is "
        "there, as with a <think> part in it where thinking is off; leave that out or correct "
        "dataset.chatTemplateKwargs"
    )


def test_a_row_that_the_template_refuses_is_a_fault_without_its_text(tokenizer: Any) -> None:
    refuse = "{% if 'secret' in m['content'] %}{{ raise_exception(m['content']) }}{% endif %}"
    picky = f"{{% for m in messages %}}{refuse}{{% endfor %}}"
    found = encoder(tokenizer, custom(picky + PLAIN + ASK)).encode(example("my secret", "b"))
    assert found == "the chat template of dataset.templateRef refuses its conversation of user, assistant"


def test_a_row_of_which_the_template_drops_a_part_is_a_fault(tokenizer: Any) -> None:
    dropping = PLAIN.replace("m['content']", "m['content'][:30]") + ASK
    found = encoder(tokenizer, custom(dropping)).encode(example("word " * 10, "b"))
    assert found == "the chat template of dataset.templateRef does not show the whole user message"


def test_a_template_may_trim_what_it_shows(tokenizer: Any) -> None:
    trimming = PLAIN.replace("m['content']", "m['content'] | trim") + ASK
    row = tokenized(encoder(tokenizer, custom(trimming)).encode(example(" a\n", "\n b ")))
    assert text(tokenizer, row.input_ids).endswith("user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>")


KEEPS = "does not keep what it showed before an answer once the answer is there"
UNFIT = [
    (PLAIN + "<|im_start|>model\n", KEEPS),
    ("{{ messages | length }}" + PLAIN + ASK, KEEPS),
    ("{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}", "does not end an answer with a token"),
    (PLAIN.replace("m['content']", "m['role']"), "does not show the whole user message"),
    ("hello", "does not show the whole user message"),
    ("{{ bos_token }}{{ bos_token }}" + PLAIN.replace("<|im_start|>", "") + ASK.replace("<|im_start|>", ""), "twice"),
    ("{{ raise_exception('no') }}", "refuses a conversation of user: no"),
    ("{% for %}", "has an error in line 1"),
]


@pytest.mark.parametrize(("jinja", "words"), UNFIT, ids=[str(i) for i in range(len(UNFIT))])
def test_a_template_with_which_nothing_can_be_learned_is_refused_at_once(
    tokenizer: Any, jinja: str, words: str
) -> None:
    for kind, error, fix in (
        ("Custom", SettingsError, "correct it"),
        ("Model", ModelError, "set dataset.promptTemplate"),
    ):
        with pytest.raises(StageError, match=rf"chat template.* {words}.*; {fix}") as caught:
            encoder(tokenizer, ChatTemplate(kind, jinja))  # type: ignore[arg-type]
        assert isinstance(caught.value, error)


REFUSING = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"


@pytest.mark.parametrize(("kind", "error"), [("Custom", SettingsError), ("Model", ModelError)])
def test_a_system_prompt_without_a_place_is_refused_at_once(tokenizer: Any, kind: Any, error: type[StageError]) -> None:
    with pytest.raises(
        error, match=r"has no place for dataset\.systemPrompt: it refuses a conversation of system, user"
    ):
        encoder(tokenizer, ChatTemplate(kind, REFUSING + PLAIN + ASK), system_prompt="짧게")


def test_a_folded_system_message_is_learned_from_as_a_server_shows_it(tokenizer: Any) -> None:
    template = ChatTemplate("Model", FOLD_SYSTEM + REFUSING + PLAIN + ASK)
    row = tokenized(encoder(tokenizer, template, system_prompt="짧게").encode(example("질문", "답")))
    assert text(tokenizer, row.input_ids) == (
        "<|im_start|>user\n짧게\n\n질문<|im_end|>\n<|im_start|>assistant\n답<|im_end|>"
    )


@pytest.mark.parametrize(("template", "system"), list(product([None, ALPACA], [None, "짧게"])))
def test_an_input_is_asked_with_its_question_also_below_a_system_message(
    tokenizer: Any, template: ChatTemplate | None, system: str | None
) -> None:
    row = tokenized(encoder(tokenizer, template).encode(example("더해", "3", system=system, context="1 2")))
    heading = "### Input:\n" if template else ""
    assert f"더해\n\n{heading}1 2" in text(tokenizer, row.input_ids)
