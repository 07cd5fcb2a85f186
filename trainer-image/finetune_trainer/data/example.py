"""One example of any format, as everything after the intake sees it."""

from dataclasses import dataclass
from typing import Literal, TypedDict


class Message(TypedDict):
    """One turn."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True)
class Example:
    """One row of a dataset.

    `messages`: at most one system message first, then user and assistant by turns, assistant last. Of a Preference row
    the last message is the chosen answer. Empty for a Text row, which has `text` instead.
    """

    source: str
    line: int
    # Row number over all sources, from 0.
    row_id: int
    messages: tuple[Message, ...]
    # The `input` of an Alpaca row, which belongs to the one question; each template places it in its own way.
    context: str = ""
    # Of a Preference row: the answer that is worse than the last message.
    rejected: str | None = None
    # Of a Binary row: whether the answer is a good one.
    label: bool | None = None
    # Of a Text row, learned as it is.
    text: str | None = None

    @property
    def where(self) -> str:
        """How messages name the row."""
        return row_name(self.source, self.line)


def row_name(source: str, line: int) -> str:
    """Return how messages name a row."""
    return f'source "{source}", line {line}'
