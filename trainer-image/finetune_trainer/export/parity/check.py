"""Judges how a GGUF predicts, on rows that were not trained on if there are enough.

The F16 file and the adapter's GGUF are held against the trained model, the other files against the F16 file, so that
each step is judged by what it may change. `figures` has what is measured, `limits` what is required. Questions and
bundled texts must also give the same tokens as the model's own tokenizer.
"""

import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from finetune_trainer.errors import ModelError
from finetune_trainer.evaluation.reference import Probe, Prompt, Reference
from finetune_trainer.export.llama_cpp.api import LlamaModel
from finetune_trainer.export.parity import limits as parity_limits
from finetune_trainer.export.parity import predictions
from finetune_trainer.export.parity.figures import Figures, figures
from finetune_trainer.export.parity.limits import Limits
from finetune_trainer.export.records import GGUFAnswer
from finetune_trainer.export.rejected_file import RejectedFile

log = logging.getLogger(__name__)


def check_tokens(model: LlamaModel, prompts: Sequence[Prompt], probes: Sequence[Probe], bos: str | None) -> None:
    """Check that the file's tokenizer gives the same tokens as the one used in training.

    Raises:
        RejectedFile: it does not.
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
        raise RejectedFile(
            f"the GGUF's tokenizer splits {wrong[0]} into other tokens than the model's own: llama.cpp does not "
            "support this tokenizer; serve the adapter with another server, and leave out export.gguf"
        )


def true_tokens(
    path: Path, reference: Reference, *, lora: Path | None = None, lora_scale: float = 1.0
) -> list[list[float]]:
    """Return the log-probabilities of the true tokens, in nats by row, of a file with `lora` applied at a scale.

    At -1 the adapter's GGUF takes out of a merged file what the merge put in, and leaves the base.
    """
    with LlamaModel(path, _longest(reference), lora=lora, lora_scale=lora_scale) as model:
        return [predictions.true_tokens(model, row) for row in reference.rows]


def check(
    name: str,
    path: Path,
    reference: Reference,
    bos: str | None,
    required: Limits,
    *,
    base: Sequence[Sequence[float]] | None = None,
    lora: Path | None = None,
) -> tuple[Figures, Reference]:
    """Measure one file, or `lora` on the base's file, and return its figures and what it predicts.

    Args:
        name: of the file, for the message.
        path: the GGUF.
        reference: the model that it is held against.
        bos: the tokenizer's BOS.
        required: the limits.
        base: of `true_tokens` without the adapter. None: the file's own weights are those of training.
        lora: the adapter's GGUF.

    Raises:
        RejectedFile: its figures miss the limits, or its tokenizer differs.
        ModelError: there is nothing to compare it with.
    """
    if not reference.rows:
        raise ModelError("there is no answer to compare a GGUF on; add rows with shorter questions")
    with LlamaModel(path, _longest(reference), lora=lora) as model:
        check_tokens(model, reference.prompts, reference.probes, bos)
        bases = [None] * len(reference.rows) if base is None else base
        compared = [predictions.compare(model, row, own) for row, own in zip(reference.rows, bases, strict=True)]
    found = figures([tokens for tokens, _ in compared])
    log.info("%s: %s", name, ", ".join(f"{k} {v:.4g}" for k, v in asdict(found).items() if v is not None))
    if (wrong := parity_limits.judge(found, required)) is not None:
        raise RejectedFile(
            f"the {name} is not the model that was trained: {wrong}; it was not published",
            asdict(found) | {"retained_gain": found.retained_gain},
        )
    return found, reference.model_copy(update={"rows": [row for _, row in compared]})


def answers(
    path: Path, prompts: Sequence[Prompt], stop_token_ids: Sequence[int], max_new_tokens: int
) -> list[GGUFAnswer]:
    """Return the file's answers to the questions."""
    longest = max((len(prompt.input_ids) for prompt in prompts), default=0)
    with LlamaModel(path, longest + max_new_tokens) as model:
        found = [model.generate(prompt.input_ids, stop_token_ids, max_new_tokens) for prompt in prompts]
        # Cut after the last whole character: a limit on tokens may fall inside one.
        texts = [model.text(tokens).decode("utf-8", errors="ignore").strip() for tokens in found]
    return [
        GGUFAnswer(text=text, stopped=len(tokens) < max_new_tokens) for text, tokens in zip(texts, found, strict=True)
    ]


def _longest(reference: Reference) -> int:
    return max(len(row.input_ids) for row in reference.rows)
