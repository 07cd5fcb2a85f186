"""Chooses hold-out questions to ask before and after training if the user names none."""

from pathlib import Path
from typing import Any

from finetune_trainer.data.rows import disk_buffer
from finetune_trainer.data.rows.example import Example
from finetune_trainer.data.tokens.chat_template import Template, question_of
from finetune_trainer.run_folder.prepared import Question

_QUESTIONS = 5


def held_questions(spooled: Path, held: Any, template: Template) -> list[Question]:
    """Return the questions of the first suitable hold-out rows (a bool array over the spooled rows), each once.

    Plain text has no question. An answer labelled bad is not used as a reference.
    """
    # Rows with a system message of their own come last: a question is asked with the job's.
    best: dict[str, Question] = {}
    second: dict[str, Question] = {}
    for index, example in enumerate(disk_buffer.read(spooled)):
        if not held[index] or not example.messages:
            continue
        own_system = example.messages[0]["role"] == "system"
        found = second if own_system or example.label is False else best
        if len(found) < _QUESTIONS:
            prompt = question_of(example, template)
            found.setdefault(prompt, Question(prompt=prompt, reference=_reference(example)))
        if len(best) == _QUESTIONS:
            break
    for prompt, question in second.items():
        best.setdefault(prompt, question)
    return list(best.values())[:_QUESTIONS]


def _reference(example: Example) -> str | None:
    if example.label is False:
        return None
    return next(m["content"] for m in example.messages if m["role"] == "assistant")
