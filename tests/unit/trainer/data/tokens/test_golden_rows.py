"""Token ids and masks of whole rows, by family of tokenizers: `golden/*.json`, which were reviewed by reading.

Each file has the rows of one family as segments [text, learned] and as token ids. What is real about the tokenizers
and what is built is said in tests/support/tokenizer_families.py. After a change that is meant, write the files again
and read the difference:

    PYTHONPATH=crds:trainer-image python -m tests.unit.trainer.data.tokens.test_golden_rows
"""

import json
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from finetune_api.plan import DatasetPlan
from finetune_trainer.data.rows.example import Example, Message
from finetune_trainer.data.tokens.chat_template import adds_bos
from finetune_trainer.data.tokens.encoder import Encoder
from finetune_trainer.data.tokens.stop_tokens import find_stops
from finetune_trainer.methods.sft import SFTRow
from finetune_trainer.prepare.template_choice import choose
from tests.support.tokenizer_families import FAMILIES, Family

FOLDER = Path(__file__).parent / "golden"
ASKED: Message = {"role": "user", "content": "스쿼트가 뭐야? 10 words, then:"}
ANSWERED: Message = {"role": "assistant", "content": "하체 운동.\n\nThe knees bend 🏋️"}
AGAIN: Message = {"role": "user", "content": "And a plank?"}
LAST: Message = {"role": "assistant", "content": "코어 운동."}
SYSTEM: Message = {"role": "system", "content": "짧게 답해."}
THOUGHT: Message = {"role": "assistant", "content": "<think>\nA core exercise.\n</think>\n\n코어 운동."}
ROWS: dict[str, tuple[Message, ...]] = {
    "one question": (ASKED, ANSWERED),
    "with a system message": (SYSTEM, ASKED, ANSWERED),
    "a conversation": (SYSTEM, ASKED, ANSWERED, AGAIN, LAST),
    "a conversation without a system message": (ASKED, ANSWERED, AGAIN, LAST),
}
THINKING_ROWS: dict[str, tuple[Message, ...]] = {
    "an answer with thinking": (AGAIN, THOUGHT),
    "thinking in an earlier answer": (AGAIN, THOUGHT, ASKED, ANSWERED),
}
Golden = dict[str, dict[str, Any]]


def _encoder(family: Family, tokenizer: Any) -> Encoder:
    dataset = DatasetPlan.model_validate(
        {"sources": [], "format": "Auto", "promptTemplate": "Auto", "minimumExamples": 50, "invalidRows": "Fail"}
        | {"holdoutPercent": 5, "chatTemplateKwargs": family.kwargs}
    )
    template = choose(dataset, tokenizer, None, family.name)
    stops = find_stops(tokenizer, template, tokenizer.convert_tokens_to_ids(list(family.stops)))
    return Encoder(tokenizer, template, stops, method="SFT", system_prompt=None, maximum=2048, responses_only=True)


def _segments(tokenizer: Any, row: SFTRow) -> list[list[Any]]:
    pairs = zip(row.completion_mask, row.input_ids, strict=True)
    return [
        [tokenizer.decode([i for _, i in group], skip_special_tokens=False), bool(learned)]
        for learned, group in groupby(pairs, key=lambda pair: pair[0])
    ]


def encoded(family: Family, tokenizer: Any) -> Golden:
    """Return the rows of a family; a row that is refused has the reason instead."""
    encoder = _encoder(family, tokenizer)
    rows = ROWS | (THINKING_ROWS if "qwen3" in family.name else {})
    found: Golden = {}
    for name, messages in rows.items():
        row = encoder.encode(Example("s", 1, 0, messages))
        if isinstance(row, str):
            found[name] = {"refused": row}
        else:
            assert isinstance(row, SFTRow)
            found[name] = {"segments": _segments(tokenizer, row), "ids": row.input_ids}
    return found


@pytest.fixture(scope="module", params=FAMILIES, ids=lambda f: f.name)
def family(request: pytest.FixtureRequest) -> tuple[Family, Any]:
    return request.param, request.param.load()


def test_rows_are_those_that_were_reviewed(family: tuple[Family, Any]) -> None:
    golden = json.loads((FOLDER / f"{family[0].name}.json").read_text(encoding="utf-8"))
    assert encoded(*family) == golden


def test_rows_begin_with_one_bos_where_the_tokenizer_adds_it(family: tuple[Family, Any]) -> None:
    tokenizer = family[1]
    for row in encoded(*family).values():
        if adds_bos(tokenizer) and "ids" in row:
            assert row["ids"][0] == tokenizer.bos_token_id
            assert row["ids"].count(tokenizer.bos_token_id) == 1


def test_each_learned_part_ends_on_a_stop_token(family: tuple[Family, Any]) -> None:
    learned = [text for row in encoded(*family).values() for text, is_learned in row.get("segments", []) if is_learned]
    assert learned
    assert all(text.endswith(family[0].stops) for text in learned)


def _write(family: Family) -> None:
    parts = []
    for name, row in encoded(family, family.load()).items():
        if "refused" in row:
            parts.append(f" {json.dumps(name)}: {json.dumps(row, ensure_ascii=False)}")
            continue
        lines = ",\n".join(f"   {json.dumps(segment, ensure_ascii=False)}" for segment in row["segments"])
        parts.append(f' {json.dumps(name)}: {{\n  "segments": [\n{lines}\n  ],\n  "ids": {json.dumps(row["ids"])}\n }}')
    (FOLDER / f"{family.name}.json").write_text("{\n" + ",\n".join(parts) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    for each in FAMILIES:
        _write(each)
