"""One example of any format, as everything after the intake sees it."""

from dataclasses import dataclass
from typing import Literal, TypedDict

# How a file counts: lines of text, or elements of an array and rows of a table.
Unit = Literal["line", "row"]


class Message(TypedDict):
    """One turn."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True)
class Example:
    """One row of a dataset.

    `messages`: at most one system message first, then user and assistant by turns, assistant last. For a Preference row
    the last message is the chosen answer. Empty for a Text row, which has `text` instead.
    """

    source: str
    # Number from 1 in its file, by `unit`.
    line: int
    # Row number over all sources, from 0.
    row_id: int
    messages: tuple[Message, ...]
    # The `input` of an Alpaca row, which belongs to the one question; each template places it in its own way.
    context: str = ""
    # Preference rows: the answer that is worse than the last message.
    rejected: str | None = None
    # Binary rows: whether the answer is a good one.
    label: bool | None = None
    # Text rows: the text, learned as it is.
    text: str | None = None
    unit: Unit = "line"

    @property
    def where(self) -> str:
        """How messages name the row."""
        return row_name(self.source, self.line, self.unit)


def row_name(source: str, number: int, unit: Unit = "line") -> str:
    """Return how messages name a row."""
    return f'source "{source}", {unit} {number}'
