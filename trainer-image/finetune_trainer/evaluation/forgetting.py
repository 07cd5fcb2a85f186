"""Measures how far training moved the model on general questions unrelated to the dataset."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from finetune_trainer.data.tokens import chat_template as template
from finetune_trainer.evaluation.generate import autocast
from finetune_trainer.evaluation.logits import logits_returned
from finetune_trainer.methods.interface import LoadedModel
from finetune_trainer.model.load import for_training

# Nats per token. Measured with SmolLM2-135M-Instruct on examples/coach.jsonl (rank 16, batches of 4, 5 warm-up steps):
# learning rate 2e-4: 0.06 after 20 steps, 0.10 after 40; 1e-3: 0.32 after 20; 1e-2: 0.59 after 5, 0.92 after 10; 1e-1,
# which destroys the model (hold-out loss 41 instead of 3.3): 42 after 5.
LIMIT = 0.5
_QUESTIONS = "general_questions.jsonl"
# The first tokens of an answer are enough: all 40 questions take 28 s of CPU with SmolLM2, with all tokens 36 s.
_ANSWER_TOKENS = 24
# Positions times vocabulary times four bytes, four times: 130 MB with a vocabulary of 256,000.
_POSITIONS_AT_ONCE = 32


@dataclass(frozen=True)
class GeneralQuestion:
    """A general question with a plain answer, along which predictions are compared without generation."""

    prompt: str
    answer: str


@dataclass(frozen=True)
class TokenizedQuestion:
    """`ids` of the question and the beginning of its answer, which starts at `start`."""

    ids: list[int]
    start: int


def questions() -> list[GeneralQuestion]:
    """Return the bundled questions, half of them Korean."""
    text = resources.files("finetune_trainer.evaluation").joinpath(_QUESTIONS).read_text(encoding="utf-8")
    return [GeneralQuestion(**json.loads(line)) for line in text.splitlines()]


def tokenize(tokenizer: Any, chat_template: str, asked: Sequence[GeneralQuestion]) -> list[TokenizedQuestion]:
    """Render the questions as a user would ask them, without the job's system prompt."""
    found = []
    for question in asked:
        prompt = template.encode(tokenizer, template.render_prompt(tokenizer, chat_template, None, question.prompt))
        answer = tokenizer(question.answer, add_special_tokens=False)["input_ids"][:_ANSWER_TOKENS]
        found.append(TokenizedQuestion([*prompt, *answer], len(prompt)))
    return found


def divergence(loaded: LoadedModel, asked: Sequence[TokenizedQuestion], advance: Callable[[int], None]) -> float:
    """Return the mean KL(base || tuned) over the tokens of the answers' beginnings, in nats.

    At each position, KL = sum over the vocabulary of p_base * (log p_base - log p_tuned). The base is the same model
    with its adapter switched off. `advance` is called with the percentage done.
    """
    import torch

    for_training(loaded.model)
    loaded.model.eval()
    device = next(loaded.model.parameters()).device
    total, tokens = 0.0, 0
    with torch.no_grad(), autocast(loaded), logits_returned():
        for done, question in enumerate(asked, 1):
            ids = torch.tensor([question.ids], device=device)
            tuned = loaded.model(input_ids=ids).logits[0, question.start - 1 : -1]
            with loaded.model.disable_adapter():
                base = loaded.model(input_ids=ids).logits[0, question.start - 1 : -1]
            total += kl_sum(base, tuned)
            tokens += len(base)
            advance(100 * done // len(asked))
    return total / tokens


def kl_sum(base: Any, tuned: Any) -> float:
    """Return the sum of KL(base || tuned) over positions, in nats; both are logits of shape (positions, vocabulary)."""
    total = 0.0
    for start in range(0, len(base), _POSITIONS_AT_ONCE):
        part = slice(start, start + _POSITIONS_AT_ONCE)
        p, q = base[part].float().log_softmax(dim=1), tuned[part].float().log_softmax(dim=1)
        total += float((p.exp() * (p - q)).sum())
    return total
