"""Answers that only repeat the prompt."""

from collections.abc import Iterable


def is_echo(answer: str, prompts: Iterable[str]) -> bool:
    """Return whether the answer is one of the prompts; all are normal forms (see `normal_form`)."""
    return any(prompt == answer for prompt in prompts if prompt)
