"""Rows, formats and columns that are wrong, and the one sentence that each of them gets."""

import json
from typing import Any

import pytest

from tests.bad_inputs.dataset_case import FIX as _FIX
from tests.bad_inputs.dataset_case import SECRET as _SECRET
from tests.bad_inputs.dataset_case import Case, Make, check, message, of_bytes, of_rows, planned
from tests.support.trainer_job import TrainerJob

_TURNS = [message("user"), message("assistant")]
_GOOD: dict[str, dict[str, Any]] = {
    "Alpaca": {"instruction": _SECRET, "output": _SECRET},
    "Messages": {"messages": _TURNS},
    "ShareGPT": {"conversations": [{"from": "human", "value": _SECRET}, {"from": "gpt", "value": _SECRET}]},
    "PromptCompletion": {"prompt": _SECRET, "completion": _SECRET},
    "Text": {"text": _SECRET},
    "Preference": {"prompt": _SECRET, "chosen": _SECRET, "rejected": "no"},
    "Binary": {"prompt": _SECRET, "completion": _SECRET, "label": True},
}
_METHODS = {"Preference": "DPO", "Binary": "KTO"}
_NAME_THEM = "name the fields as in dataset.format, or map them in dataset.columns, such as {output: answer}"


def _second(row_format: str, row: dict[str, Any]) -> Make:
    """A good row of a format on line 1, then this."""
    return planned(of_rows(_GOOD[row_format], row), method=_METHODS.get(row_format, "SFT"))


def _but(row_format: str, **fields: Any) -> Make:
    """A good row, then the same with other fields; None takes one away."""
    row = {k: v for k, v in (_GOOD[row_format] | fields).items() if v is not None}
    return _second(row_format, row)


def _shared(*turns: dict[str, Any], field: str = "conversations") -> Make:
    return _second("ShareGPT", {field: list(turns)})


def _from(who: str, value: Any = _SECRET) -> dict[str, Any]:
    return {"from": who, "value": value}


def _mapped(row: dict[str, Any], **columns: str) -> Make:
    return planned(of_rows(row), columns=columns)


def _mismatch(method: str, row_format: str) -> Make:
    return planned(of_rows(_GOOD[row_format]), method=method)


CASES = [
    Case(
        "Alpaca output of spaces",
        _but("Alpaca", output=" \n\t"),
        f'source "coach", line 2: field "output" is missing or empty{_FIX}',
    ),
    Case(
        "Alpaca output of wide spaces",
        _but("Alpaca", output="\u3000\u3000"),
        f'source "coach", line 2: field "output" is missing or empty{_FIX}',
    ),
    Case(
        "Alpaca output null",
        of_bytes(f'{json.dumps(_GOOD["Alpaca"])}\n{{"instruction": "a", "output": null}}'),
        f'source "coach", line 2: field "output" is missing or empty{_FIX}',
    ),
    Case(
        "Alpaca output NaN",
        of_bytes(f'{json.dumps(_GOOD["Alpaca"])}\n{{"instruction": "a", "output": NaN}}'),
        f'source "coach", line 2: field "output" is missing or empty{_FIX}',
    ),
    Case(
        "Alpaca output of a list",
        _but("Alpaca", output=[_SECRET]),
        f'source "coach", line 2: field "output" is not text{_FIX}',
    ),
    Case(
        "Alpaca system that is no text",
        _but("Alpaca", system=5),
        f'source "coach", line 2: field "system" is not text{_FIX}',
    ),
    Case(
        "Alpaca system with a control character",
        _but("Alpaca", system="a\x1b"),
        f'source "coach", line 2: field "system" has the control character U+001B{_FIX}',
    ),
    Case(
        "Alpaca input that is an object",
        _but("Alpaca", input={"a": _SECRET}),
        f'source "coach", line 2: field "input" is not text{_FIX}',
    ),
    Case(
        "Alpaca with another name for the answer",
        of_rows({"instruction": _SECRET, "response": "b"}),
        'source "coach", line 1: the format is not known from its fields (instruction, response); '
        f"Alpaca rows also have output; {_NAME_THEM}",
    ),
    Case(
        "Messages that are an object",
        _but("Messages", messages={"role": "user"}),
        f'source "coach", line 2: field "messages" is not a list of messages{_FIX}',
    ),
    Case(
        "Messages with the content of parts",
        _but("Messages", messages=[message("user", [{"type": "text"}])]),
        f'source "coach", line 2: the content of message 1 is not text{_FIX}',
    ),
    Case(
        "Messages with the role of a tool",
        _but("Messages", messages=[*_TURNS, message("tool")]),
        f'source "coach", line 2: message 3 has an unknown role; the roles are system, user, assistant{_FIX}',
    ),
    Case(
        "Messages that begin with the answer",
        _but("Messages", messages=_TURNS[1:]),
        f'source "coach", line 2: message 1 breaks the turns: user and assistant must alternate, and user begins{_FIX}',
    ),
    Case(
        "Messages of a system message only",
        _but("Messages", messages=[message("system")]),
        f'source "coach", line 2: the last message must be the assistant\'s answer{_FIX}',
    ),
    Case(
        "Messages with from and value",
        _but("Messages", messages=_GOOD["ShareGPT"]["conversations"]),
        f'source "coach", line 2: message 1 has an unknown role; the roles are system, user, assistant{_FIX}',
    ),
    Case(
        "ShareGPT without turns", _shared(), f'source "coach", line 2: field "conversations" is missing or empty{_FIX}'
    ),
    Case(
        "ShareGPT with an unknown speaker",
        _shared(_from("human"), _from("function_call")),
        'source "coach", line 2: message 2 has an unknown role; '
        f"the roles are system, user, assistant, human, gpt, model, bot{_FIX}",
    ),
    Case(
        "ShareGPT without a speaker",
        _shared({"value": _SECRET}),
        'source "coach", line 2: message 1 has an unknown role; '
        f"the roles are system, user, assistant, human, gpt, model, bot{_FIX}",
    ),
    Case(
        "ShareGPT with an empty answer",
        _shared(_from("human"), _from("gpt", "")),
        f'source "coach", line 2: the content of message 2 is missing or empty{_FIX}',
    ),
    Case(
        "ShareGPT that begins with the answer",
        _shared(_from("gpt"), _from("human"), _from("gpt")),
        f'source "coach", line 2: message 1 breaks the turns: user and assistant must alternate, and user begins{_FIX}',
    ),
    Case(
        "ShareGPT that ends on the question",
        _shared(_from("human"), _from("gpt"), _from("human")),
        f'source "coach", line 2: the last message must be the assistant\'s answer{_FIX}',
    ),
    Case(
        "ShareGPT of texts",
        _second("ShareGPT", {"conversations": [_SECRET]}),
        f'source "coach", line 2: message 1 is not an object with role and content{_FIX}',
    ),
    Case(
        "ShareGPT row without conversations",
        _second("ShareGPT", _GOOD["Alpaca"]),
        f'source "coach", line 2: field "conversations" is missing or empty{_FIX}',
    ),
    Case(
        "PromptCompletion without completion",
        _but("PromptCompletion", completion=None),
        f'source "coach", line 2: field "completion" is missing or empty{_FIX}',
    ),
    Case(
        "PromptCompletion with an empty prompt",
        _but("PromptCompletion", prompt=""),
        f'source "coach", line 2: field "prompt" is missing or empty{_FIX}',
    ),
    Case(
        "PromptCompletion with a number",
        _but("PromptCompletion", completion=1),
        f'source "coach", line 2: field "completion" is not text{_FIX}',
    ),
    Case(
        "PromptCompletion with an empty list",
        _but("PromptCompletion", prompt=[]),
        f'source "coach", line 2: field "prompt" is missing or empty{_FIX}',
    ),
    Case(
        "PromptCompletion with a broken message",
        _but("PromptCompletion", prompt=[{"role": "user"}]),
        f'source "coach", line 2: the content of message 1 of "prompt" is missing or empty{_FIX}',
    ),
    Case(
        "PromptCompletion whose prompt is answered",
        _but("PromptCompletion", prompt=_TURNS),
        f'source "coach", line 2: message 3 breaks the turns: user and assistant must alternate, and user begins{_FIX}',
    ),
    Case(
        "Text that is empty", _but("Text", text=""), f'source "coach", line 2: field "text" is missing or empty{_FIX}'
    ),
    Case(
        "Text that is a list", _but("Text", text=[_SECRET]), f'source "coach", line 2: field "text" is not text{_FIX}'
    ),
    Case(
        "Text with a control character",
        _but("Text", text=f"{_SECRET}\x00"),
        f'source "coach", line 2: field "text" has the control character U+0000{_FIX}',
    ),
    Case(
        "Preference without rejected",
        _but("Preference", rejected=None),
        f'source "coach", line 2: field "rejected" is missing or empty{_FIX}',
    ),
    Case(
        "Preference with an empty chosen",
        _but("Preference", chosen="  "),
        f'source "coach", line 2: field "chosen" is missing or empty{_FIX}',
    ),
    Case(
        "Preference without prompt",
        _but("Preference", prompt=None),
        f'source "coach", line 2: field "prompt" is missing or empty{_FIX}',
    ),
    Case(
        "Preference lists of different prompts",
        _second("Preference", {"chosen": _TURNS, "rejected": [message("user", "other"), message("assistant")]}),
        f'source "coach", line 2: the messages of "chosen" and "rejected" differ before the last one{_FIX}',
    ),
    Case(
        "Preference lists of which one ends on the question",
        _second("Preference", {"chosen": _TURNS, "rejected": [*_TURNS, message("user")]}),
        f'source "coach", line 2: the messages of "chosen" and "rejected" differ before the last one{_FIX}',
    ),
    Case(
        "Preference whose rejected is a question",
        _second("Preference", {"chosen": _TURNS, "rejected": [message("user"), message("user")]}),
        f'source "coach", line 2: the last message of "rejected" must be the assistant\'s answer{_FIX}',
    ),
    Case(
        "Preference with a broken message in rejected",
        _second("Preference", {"chosen": _TURNS, "rejected": [message("user"), message("assistant", "")]}),
        f'source "coach", line 2: the content of message 2 of "rejected" is missing or empty{_FIX}',
    ),
    Case(
        "Binary without label",
        _but("Binary", label=None),
        f'source "coach", line 2: field "label" is missing or empty{_FIX}',
    ),
    Case(
        "Binary with a score as label",
        _but("Binary", label=0.7),
        f'source "coach", line 2: field "label" is neither true nor false{_FIX}',
    ),
    Case(
        "Binary with a word as label",
        _but("Binary", label="good"),
        f'source "coach", line 2: field "label" is neither true nor false{_FIX}',
    ),
    Case(
        "Binary with a list as label",
        _but("Binary", label=[True]),
        f'source "coach", line 2: field "label" is neither true nor false{_FIX}',
    ),
    Case(
        "Binary without completion",
        _but("Binary", completion=None),
        f'source "coach", line 2: field "completion" is missing or empty{_FIX}',
    ),
    Case(
        "DPO of Alpaca rows",
        _mismatch("DPO", "Alpaca"),
        'source "coach" has Alpaca rows, and training.method DPO learns from Preference rows; '
        "set training.method to SFT, or use other data",
    ),
    Case(
        "ORPO of Binary rows",
        _mismatch("ORPO", "Binary"),
        'source "coach" has Binary rows, and training.method ORPO learns from Preference rows; '
        "set training.method to KTO, or use other data",
    ),
    Case(
        "KTO of Preference rows",
        _mismatch("KTO", "Preference"),
        'source "coach" has Preference rows, and training.method KTO learns from Binary rows; '
        "set training.method to DPO or ORPO, or use other data",
    ),
    Case(
        "KTO of PromptCompletion rows",
        _mismatch("KTO", "PromptCompletion"),
        'source "coach" has PromptCompletion rows, and training.method KTO learns from Binary '
        "rows; set training.method to SFT, or use other data",
    ),
    Case(
        "SFT of Preference rows",
        _mismatch("SFT", "Preference"),
        'source "coach" has Preference rows, and training.method SFT learns from Alpaca, '
        "ShareGPT, Messages, PromptCompletion or Text rows; set training.method to DPO or ORPO, or use other data",
    ),
    Case(
        "SFT of Binary rows",
        _mismatch("SFT", "Binary"),
        'source "coach" has Binary rows, and training.method SFT learns from Alpaca, '
        "ShareGPT, Messages, PromptCompletion or Text rows; set training.method to KTO, or use other data",
    ),
    Case(
        "DPO of a source that is set to Text",
        planned(of_rows(), method="DPO", row_format="Text"),
        'source "coach" has Text rows, and training.method DPO learns from Preference rows; '
        "set training.method to SFT, or use other data",
    ),
    Case(
        "source that is set to another format",
        planned(of_rows(_GOOD["Alpaca"]), row_format="Messages"),
        f'source "coach", line 1: field "messages" is missing or empty{_FIX}',
    ),
    Case(
        "fields of no format",
        of_rows({"id": 1, "질문": _SECRET}),
        f'source "coach", line 1: the format is not known from its fields (id, 질문); {_NAME_THEM}',
    ),
    Case(
        "prompt without completion",
        of_rows({"prompt": _SECRET, "response": "b"}),
        'source "coach", line 1: the format is not known from its fields (prompt, response); '
        f"PromptCompletion rows also have completion; {_NAME_THEM}",
    ),
    Case(
        "chosen alone",
        of_rows({"chosen": _SECRET, "prompt": "a"}),
        'source "coach", line 1: the format is not known from its fields (chosen, prompt); '
        f"Preference rows also have rejected; {_NAME_THEM}",
    ),
    Case(
        "object without fields",
        of_rows({}),
        f'source "coach", line 1: the format is not known from its fields (none); {_NAME_THEM}',
    ),
    Case(
        "more fields than are shown",
        of_rows({f"열{i}": _SECRET for i in range(20)}),
        'source "coach", line 1: the format is not known from its fields (열0, 열1, 열2, 열3, 열4, '
        f"열5, 열6, 열7, 열8, 열9, 열10, 열11, ...); {_NAME_THEM}",
    ),
    Case(
        "mapped name that no row has",
        _mapped({"질문": _SECRET, "답변": "b"}, instruction="질문", output="답"),
        'source "coach": dataset.columns maps output to "답", and no row has that field; the fields are 질문, 답변',
    ),
    Case(
        "optional mapped name that no row has",
        _mapped(_GOOD["Alpaca"], input="참고"),
        'source "coach": dataset.columns maps input to "참고", and no row has that field; '
        "the fields are instruction, output",
    ),
    Case(
        "mapped field that is empty",
        _mapped({"질문": _SECRET, "답변": ""}, instruction="질문", output="답변"),
        f'source "coach", line 1: field "답변" is missing or empty{_FIX}',
    ),
    Case(
        "mapping of one of two fields",
        _mapped({"질문": _SECRET, "답변": "b"}, instruction="질문"),
        'source "coach", line 1: the format is not known from its fields (질문, 답변); '
        f"Alpaca rows also have output; {_NAME_THEM}",
    ),
    Case(
        "mapped CSV column that is not there",
        planned(of_bytes(f"질문,답변\n{_SECRET},b\n"), columns={"instruction": "질문", "output": "대답"}),
        'source "coach": dataset.columns maps output to "대답", and no row has that field; the fields are 질문, 답변',
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_bad_rows_end_prepare_with_a_sentence(case: Case, job: TrainerJob, capfd: pytest.CaptureFixture[str]) -> None:
    check(case, job, capfd)
