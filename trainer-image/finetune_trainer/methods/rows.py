"""What the rows of all methods have in common. Prepare writes them; no later stage tokenizes training data."""

from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True)
class TokenSequence:
    """A question with one answer; `completion_mask` is 1 where the token is learned."""

    row_id: int
    input_ids: list[int]
    completion_mask: list[int]

    @classmethod
    def of_answer(cls, row_id: int, prompt: list[int], answer: list[int]) -> "TokenSequence":
        """Return the prompt followed by the answer, which alone is learned."""
        return cls(row_id, [*prompt, *answer], [0] * len(prompt) + [1] * len(answer))

    @property
    def length(self) -> int:
        """Tokens."""
        return len(self.input_ids)

    @property
    def supervised(self) -> int:
        """Learned tokens; nothing predicts the first one."""
        return sum(self.completion_mask[1:])

    @property
    def learned(self) -> list[int]:
        """The ids of the learned tokens."""
        return [token for token, mask in zip(self.input_ids, self.completion_mask, strict=True) if mask]


class Row(ABC):
    """One example of a method, as token ids. Each method has a dataclass of its own."""

    # The number over all sources.
    row_id: int
    # Whether the end was cut off; known in prepare alone.
    truncated: bool
    # Answers of earlier turns that are not learned; known in prepare alone.
    answers_left_out: int = 0

    @property
    @abstractmethod
    def length(self) -> int:
        """Tokens of its longest sequence."""

    @property
    @abstractmethod
    def supervised(self) -> int:
        """Tokens that a loss is computed for."""

    @property
    @abstractmethod
    def sequence(self) -> TokenSequence:
        """The question with its answer, the better one of two."""

    @property
    def is_good(self) -> bool:
        """Whether the answer of `sequence` is one that the model should give."""
        return True

    @abstractmethod
    def ends_on(self, stops: Collection[int]) -> bool:
        """Return whether each of its answers ends on a learned stop token."""


def question_too_long(tokens: int, maximum: int) -> str:
    """Return why an example whose question has so many tokens is no row; `maximum` is model.maxSequenceLength."""
    return f"its question alone has {tokens} tokens, and model.maxSequenceLength is {maximum}; shorten it or raise that"
