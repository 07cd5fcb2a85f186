"""Compares a GGUF's predictions with the trained model's, on rows that neither was trained on if there are enough.

llama.cpp evaluates the rows as they are (teacher forcing), and its predictions are compared with those of the tuned
model in train. `figures` has what is measured, `limits` what is required. Questions and bundled texts must also give
the same tokens as the model's own tokenizer.
"""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from finetune_api.spec import GGUFType, MergeBase
from finetune_trainer.errors import ModelError
from finetune_trainer.evaluation.reference import Probe, Prompt, Reference, ReferenceRow
from finetune_trainer.export.llama_cpp.api import LlamaModel
from finetune_trainer.export.parity import limits as parity_limits
from finetune_trainer.export.parity.figures import Figures as Figures
from finetune_trainer.export.parity.figures import Tokens, divergence, figures

# In 64 bit they take 131 MB for a vocabulary of 128,256, and as much again while they are summed.
_POSITIONS_AT_ONCE = 128

log = logging.getLogger(__name__)


class Rejected(ModelError):  # noqa: N818 - a result of the check
    """The file is not the model that was trained."""

    def __init__(self, message: str, figures: Figures) -> None:
        super().__init__(message)
        self.figures = figures


def predictions(model: LlamaModel, row: ReferenceRow) -> Tokens:
    """Return how the model predicts the supervised tokens of a row."""
    import numpy as np

    ids, log_top, rest = np.array(row.top_ids), np.array(row.top), np.array(row.rest)
    truth = np.array([row.input_ids[i] for i in row.positions])
    file, kl, agrees, done = [], [], [], 0
    for logits in _logits(model, row):
        part = slice(done, done + len(logits))
        done = part.stop
        total = _log_sum(logits)
        file.append(np.take_along_axis(logits, truth[part, None], axis=1)[:, 0] - total)
        agrees.append(logits.argmax(axis=1) == ids[part, 0])
        top = np.take_along_axis(logits, ids[part], axis=1) - total[:, None]
        np.put_along_axis(logits, ids[part], -np.inf, axis=1)
        kl.append(divergence(log_top[part], rest[part], top, _log_sum(logits) - total))
    base, tuned = np.array(row.base), np.array(row.tuned)
    return Tokens(base, tuned, np.concatenate(file), np.concatenate(kl), np.concatenate(agrees))


def _logits(model: LlamaModel, row: ReferenceRow) -> Iterator[Any]:
    """Yield the logits that predict the supervised tokens, in 64 bit, a few positions at a time."""
    import numpy as np

    for logits in model.logits(row.input_ids, [i - 1 for i in row.positions]):
        for first in range(0, len(logits), _POSITIONS_AT_ONCE):
            yield logits[first : first + _POSITIONS_AT_ONCE].astype(np.float64)


def _log_sum(logits: Any) -> Any:
    """Return ln sum exp of each row."""
    import numpy as np

    peak = logits.max(axis=1, keepdims=True)
    return np.log(np.exp(logits - peak).sum(axis=1)) + peak[:, 0]


def check_tokens(model: LlamaModel, prompts: Sequence[Prompt], probes: Sequence[Probe], bos: str | None) -> None:
    """Check that the file's tokenizer gives the same tokens as the one used in training.

    Raises:
        ModelError: it does not.
    """
    wrong = [
        f"question {number}"
        for number, prompt in enumerate(prompts, 1)
        # Exactly one BOS, if the model has one.
        if model.tokenize(prompt.text, add_bos=not (bos and prompt.text.startswith(bos))) != prompt.input_ids
    ]
    wrong += [
        f"the test text with {probe.name}"
        for probe in probes
        if model.tokenize(probe.text, add_bos=False) != probe.input_ids
    ]
    if wrong:
        raise ModelError(
            f"the GGUF's tokenizer splits {wrong[0]} into other tokens than the model's own: llama.cpp does not "
            "support this tokenizer; serve the adapter with another server, and leave out export.gguf"
        )


def check(
    path: Path,
    gguf_type: GGUFType,
    reference: Reference,
    bos: str | None,
    *,
    trained_in_4bit: bool,
    merge_base: MergeBase | None = "Original",
    lora: Path | None = None,
) -> Figures:
    """Measure one file, or `lora` on the base's file.

    Raises:
        Rejected: its figures miss the limits.
        ModelError: its tokenizer differs, or there is nothing to compare it with.
    """
    if not reference.rows:
        raise ModelError("there is no answer to compare a GGUF on; add rows with shorter questions")
    with LlamaModel(path, max(len(row.input_ids) for row in reference.rows), lora=lora) as model:
        check_tokens(model, reference.prompts, reference.probes, bos)
        found = figures([predictions(model, row) for row in reference.rows])
    log.info("%s: %s", "LoRA" if lora else gguf_type, found)
    required = parity_limits.limits(
        gguf_type,
        other_weights=parity_limits.are_other_weights(trained_in_4bit, merge_base, beside_base=lora is not None),
        parameters=reference.parameters,
    )
    if (wrong := parity_limits.judge(found, required)) is not None:
        name = "LoRA GGUF" if lora else f"{gguf_type} file"
        raise Rejected(f"the {name} is not the model that was trained: {wrong}; it was not published", found)
    return found


def answers(path: Path, prompts: Sequence[Prompt], stop_token_ids: Sequence[int], max_new_tokens: int) -> list[str]:
    """Return the file's answers to the questions."""
    longest = max((len(prompt.input_ids) for prompt in prompts), default=0)
    with LlamaModel(path, longest + max_new_tokens) as model:
        found = [model.generate(prompt.input_ids, stop_token_ids, max_new_tokens) for prompt in prompts]
        # Cut after the last whole character: a limit on tokens may fall inside one.
        return [model.text(tokens).decode("utf-8", errors="ignore").strip() for tokens in found]
