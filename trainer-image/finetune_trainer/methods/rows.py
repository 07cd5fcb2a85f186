"""The tokenized rows of each method, as prepare wrote them: nothing after this renders or tokenizes."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from finetune_api.training_spec import Method


class Row(Protocol):
    """What every method's row has."""

    @property
    def row_id(self) -> int:
        """The number over all sources."""

    @property
    def length(self) -> int:
        """Tokens of its longest sequence."""

    @property
    def supervised(self) -> int:
        """Tokens that a loss is computed for."""

    def ends_on(self, stops: Collection[int]) -> bool:
        """Return whether every answer of it ends on a learned stop token."""


@dataclass(frozen=True)
class SFTRow:
    """An example; `completion_mask` is 1 where the token is learned."""

    row_id: int
    input_ids: list[int]
    completion_mask: list[int]

    @property
    def length(self) -> int:
        """Tokens."""
        return len(self.input_ids)

    @property
    def supervised(self) -> int:
        """Learned tokens; nothing predicts the first one."""
        return sum(self.completion_mask[1:])

    def ends_on(self, stops: Collection[int]) -> bool:
        """See Row."""
        return self.input_ids[-1] in stops and self.completion_mask[-1] == 1


@dataclass(frozen=True)
class PreferenceRow:
    """A question with a better and a worse answer (DPO, ORPO)."""

    row_id: int
    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]

    @property
    def length(self) -> int:
        """Tokens of the question with the longer answer."""
        return len(self.prompt_ids) + max(len(self.chosen_ids), len(self.rejected_ids))

    @property
    def supervised(self) -> int:
        """Tokens of both answers."""
        return len(self.chosen_ids) + len(self.rejected_ids)

    def ends_on(self, stops: Collection[int]) -> bool:
        """See Row."""
        return self.chosen_ids[-1] in stops and self.rejected_ids[-1] in stops


@dataclass(frozen=True)
class BinaryRow:
    """A question with an answer that is good (`label`) or bad (KTO)."""

    row_id: int
    prompt_ids: list[int]
    completion_ids: list[int]
    label: bool

    @property
    def length(self) -> int:
        """Tokens."""
        return len(self.prompt_ids) + len(self.completion_ids)

    @property
    def supervised(self) -> int:
        """Tokens of the answer."""
        return len(self.completion_ids)

    def ends_on(self, stops: Collection[int]) -> bool:
        """See Row."""
        return self.completion_ids[-1] in stops


_ROWS: dict[Method, Callable[..., Row]] = {
    "SFT": SFTRow,
    "DPO": PreferenceRow,
    "ORPO": PreferenceRow,
    "KTO": BinaryRow,
}
COLUMNS: dict[Method, list[str]] = {
    "SFT": ["row_id", "input_ids", "completion_mask"],
    "DPO": ["row_id", "prompt_ids", "chosen_ids", "rejected_ids"],
    "ORPO": ["row_id", "prompt_ids", "chosen_ids", "rejected_ids"],
    "KTO": ["row_id", "prompt_ids", "completion_ids", "label"],
}


def read(path: Path, method: Method) -> list[Any]:
    """Return the rows of a Parquet file of prepare's: SFTRow, PreferenceRow or BinaryRow, by method."""
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(path, columns=COLUMNS[method])
    return [_ROWS[method](**row) for row in table.to_pylist()]
