"""Does a GGUF answer as the model that was trained? Measured on rows that neither learned.

The hold-out rows go through llama.cpp token by token as they are (teacher forcing), and what it predicts is compared
with what the tuned model predicted in train:

- top-1 agreement: the share of supervised tokens for which both find the same token most likely;
- loss: the mean negative log-likelihood of those tokens, in nats;
- retained gain: (base - GGUF) / (base - tuned), where training gained enough to measure. It is asked of the 16-bit
  file, which is always measured; in a small file the loss of quantizing would be taken for a loss of what was learned.

The limits come from SmolLM2-135M-Instruct, a small and therefore sensitive model, after six steps of training in 32
bit: 2,141 tokens, loss 2.396 before and 2.178 after.

    file          base F16   F16     BF16    Q8_0    Q6_K    Q5_K_M  Q4_K_M
    top-1         0.840      1.000   0.976   0.947   0.909   0.805   0.818
    loss          2.396      2.178   2.205   2.175   2.188   2.266   2.248
    retained gain 0.00       1.00    0.88    1.01    0.95    0.60    0.68

A model that was trained in 4 bit is compared with an export from the original 16-bit weights: the weights themselves
differ then, so the limits widen. They still refuse what is broken, but a small gain drowns in that difference: on the
same model trained in 4 bit (2.654 before, 2.341 after) the right F16 file has top-1 0.640 and loss 2.217, and a file of
the base, 0.612 and 2.396, would pass. That the adapter is in the file is made sure of by merging alone then.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_api.spec import GGUFType
from finetune_trainer.errors import ModelError
from finetune_trainer.gguf import cpus
from finetune_trainer.reference import Prompt, Reference, ReferenceRow

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limits:
    """What a file has to reach."""

    top1: float
    # Nats above the tuned model's loss.
    loss: float
    retained_gain: float | None


_LIMITS: dict[GGUFType, Limits] = {
    "F16": Limits(0.95, 0.05, 0.9),
    # Eight bits of precision round away a part of what a short training changed.
    "BF16": Limits(0.90, 0.20, 0.7),
    "Q8_0": Limits(0.90, 0.05, None),
    "Q6_K": Limits(0.85, 0.10, None),
    "Q5_K_M": Limits(0.70, 0.25, None),
    "Q4_K_M": Limits(0.70, 0.30, None),
}
# Added to a file's own rounding is that of training in 4 bit: a right Q4_K_M of SmolLM2-135M then agrees on 64 %. What
# training gained is judged on the 16-bit file.
_TRAINED_IN_4BIT = Limits(0.55, 0.60, 0.7)
# A smaller gain, in nats, says nothing about what was retained.
_MEASURABLE_GAIN = 0.1


@dataclass(frozen=True)
class Figures:
    """What was measured; losses in nats per token."""

    top1: float
    nll: float
    nll_base: float
    nll_tuned: float
    kl: float | None = None

    @property
    def retained_gain(self) -> float | None:
        """None where training gained too little to tell."""
        gain = self.nll_base - self.nll_tuned
        return (self.nll_base - self.nll) / gain if gain >= _MEASURABLE_GAIN else None


class Rejected(ModelError):  # noqa: N818 - what became of a file, as people call it
    """The file is not the model that was trained."""

    def __init__(self, message: str, figures: Figures) -> None:
        super().__init__(message)
        self.figures = figures


def limits(gguf_type: GGUFType, trained_in_4bit: bool) -> Limits:
    """Return what a file of this type has to reach."""
    own = _LIMITS[gguf_type]
    if not trained_in_4bit:
        return own
    wide = _TRAINED_IN_4BIT
    return Limits(
        min(own.top1, wide.top1),
        max(own.loss, wide.loss),
        None if own.retained_gain is None else wide.retained_gain,
    )


def judge(figures: Figures, required: Limits) -> str | None:
    """Return what is wrong, or None."""
    gain = figures.retained_gain
    if figures.top1 < required.top1:
        return (
            f"it predicts {figures.top1:.0%} of the tokens as the trained model does, "
            f"at least {required.top1:.0%} is needed"
        )
    if figures.nll > figures.nll_tuned + required.loss:
        return f"its loss is {figures.nll:.2f}, the trained model's is {figures.nll_tuned:.2f}"
    if gain is not None and required.retained_gain is not None and gain < required.retained_gain:
        return f"it keeps {gain:.0%} of what training gained, at least {required.retained_gain:.0%} is needed"
    return None


class GGUFModel:
    """A GGUF in llama.cpp, on the CPU."""

    def __init__(self, path: Path, context_tokens: int, *, every_logit: bool) -> None:
        import llama_cpp

        self._path = path
        threads = cpus()
        self._llama: Any = llama_cpp.Llama(
            model_path=str(path),
            n_ctx=context_tokens,
            n_threads=threads,
            n_threads_batch=threads,
            n_gpu_layers=0,
            logits_all=every_logit,
            verbose=False,
        )

    def close(self) -> None:
        """Free the memory."""
        self._llama.close()

    def tokenize(self, text: str, bos: str | None) -> list[int]:
        """Return the ids of rendered text, as a server makes them: one BOS where the model has one."""
        add_bos = not (bos and text.startswith(bos))
        return list(self._llama.tokenize(text.encode(), add_bos=add_bos, special=True))

    def predictions(self, row: ReferenceRow) -> tuple[list[int], list[float]]:
        """Return the most likely token and the true one's negative log-likelihood, by supervised token."""
        import numpy as np

        self._llama.reset()
        self._llama.eval(row.input_ids)
        positions = [i for i in range(1, len(row.input_ids)) if row.completion_mask[i]]
        logits = self._llama.scores[[i - 1 for i in positions]].astype(np.float64)
        peak = logits.max(axis=1, keepdims=True)
        normalizer = np.log(np.exp(logits - peak).sum(axis=1)) + peak[:, 0]
        truth = logits[np.arange(len(positions)), [row.input_ids[i] for i in positions]]
        return logits.argmax(axis=1).tolist(), (normalizer - truth).tolist()

    def answer(self, prompt: Sequence[int], stop_token_ids: Sequence[int], max_new_tokens: int) -> str:
        """Return the greedy answer up to the first stop token."""
        self._llama.reset()
        found: list[int] = []
        for token in self._llama.generate(list(prompt), temp=0.0, repeat_penalty=1.0, reset=True):
            if token in stop_token_ids:
                break
            found.append(int(token))
            if len(found) == max_new_tokens:
                break
        text: bytes = self._llama.detokenize(found, prev_tokens=list(prompt))
        # Cut at the last whole character: a limit on tokens may fall inside one.
        return text.decode("utf-8", errors="ignore").strip()


def measure(model: GGUFModel, rows: Sequence[ReferenceRow]) -> Figures:
    """Compare the file with the reference, token by token."""
    agreed = tokens = 0
    nll = base = tuned = 0.0
    for row in rows:
        best, losses = model.predictions(row)
        agreed += sum(ours == theirs for ours, theirs in zip(best, row.top1, strict=True))
        tokens += len(losses)
        nll += sum(losses)
        base += row.nll_base * len(losses)
        tuned += row.nll_tuned * len(losses)
    return Figures(agreed / tokens, nll / tokens, base / tokens, tuned / tokens)


def check_tokens(model: GGUFModel, prompts: Sequence[Prompt], bos: str | None) -> None:
    """Make sure that the file's tokenizer is the one of training.

    Raises:
        ModelError: it is not.
    """
    for number, prompt in enumerate(prompts, 1):
        if model.tokenize(prompt.text, bos) != prompt.input_ids:
            raise ModelError(
                f"the GGUF's tokenizer splits question {number} into other tokens than the model's own: "
                "llama.cpp does not know this tokenizer; use the adapter with another server, and leave out export.gguf"
            )


def check(path: Path, gguf_type: GGUFType, reference: Reference, bos: str | None, trained_in_4bit: bool) -> Figures:
    """Measure one file.

    Raises:
        ModelError: it is not as good as it has to be.
    """
    longest = max((len(row.input_ids) for row in reference.rows), default=1)
    model = GGUFModel(path, longest, every_logit=True)
    try:
        check_tokens(model, reference.prompts, bos)
        figures = measure(model, reference.rows)
    finally:
        model.close()
    log.info(
        "%s: top-1 %.3f, loss %.3f; base %.3f, trained model %.3f",
        *(gguf_type, figures.top1, figures.nll, figures.nll_base, figures.nll_tuned),
    )
    if (wrong := judge(figures, limits(gguf_type, trained_in_4bit))) is not None:
        raise Rejected(
            f"the {gguf_type} file is not the model that was trained: {wrong}; it was not published", figures
        )
    return figures


def answers(path: Path, prompts: Sequence[Prompt], stop_token_ids: Sequence[int], max_new_tokens: int) -> list[str]:
    """Let one file answer the questions."""
    longest = max((len(prompt.input_ids) for prompt in prompts), default=0)
    model = GGUFModel(path, longest + max_new_tokens, every_logit=False)
    try:
        return [model.answer(prompt.input_ids, stop_token_ids, max_new_tokens) for prompt in prompts]
    finally:
        model.close()
