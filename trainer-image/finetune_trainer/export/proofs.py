"""Proves the files of an export, each by what can be known of it.

The merged model and its F16 GGUF are proven weight by weight, against the adapter and the model. That leaves llama.cpp
itself in question, so each file is also run: it must predict what the model does that it was made from. Training in
4 bit rounds the weights, and merging into the original ones leaves that out: there the F16 file may differ from the
trained model, but it must not be worse, and not worse than its own base.
"""

import logging
from pathlib import Path

from finetune_api.spec import GGUFType
from finetune_api.status import Parity
from finetune_trainer.evaluation.reference import Reference
from finetune_trainer.export.exact import gguf_weights, lora_tensors, merged_weights
from finetune_trainer.export.files import ExportFiles
from finetune_trainer.export.parity import check as parity_check
from finetune_trainer.export.parity import limits as parity_limits
from finetune_trainer.export.parity.figures import Figures
from finetune_trainer.export.parity.limits import Limits
from finetune_trainer.progress.stage_clock import StageClock
from finetune_trainer.run_folder.prepared import Prepared

log = logging.getLogger(__name__)


class Proofs:
    """Of the files of one export. Each method raises RejectedFile if a file fails."""

    def __init__(self, files: ExportFiles, description: Prepared, clock: StageClock, *, trained_in_4bit: bool) -> None:
        self._files, self._prepared, self._clock = files, description, clock
        self._trained_in_4bit = trained_in_4bit
        # What the F16 file predicts.
        self._of_f16: Reference | None = None

    def merged(self) -> None:
        """Prove the merged model."""
        files = self._files
        merged, weights, loading = files.merged(), files.weights, files.loading()
        with self._clock.part("prove", "Proving") as advance:
            merged_weights.check(weights, files.adapter, merged, loading, advance)

    def f16(self, path: Path) -> Parity:
        """Prove the F16 file of the merged model, which is still there."""
        merged = self._files.merged()
        with self._clock.part("prove", "Proving") as advance:
            self._files.check_metadata(path, "F16")
            unproven = gguf_weights.check(path, merged, advance)
        _log_unproven(path, unproven)
        other = parity_limits.are_other_weights(self._trained_in_4bit, self._prepared.merge_base, beside_base=False)
        base = self._own_base(path, is_exact=not unproven) if other else None
        required = self._limits("F16", other_weights=other, is_exact=not unproven)
        with self._clock.part("prove", "Proving"):
            figures, self._of_f16 = self._check("F16 file", path, self._files.reference, required, base=base)
        return _parity(figures)

    def made_of_f16(self, gguf_type: GGUFType, path: Path, source: Path) -> Parity:
        """Prove a file of another type that was made from `source`, the F16 file, or of the same weights."""
        with self._clock.part("prove", "Proving"):
            self._files.check_metadata(path, gguf_type)
            if self._of_f16 is None:
                # An earlier attempt proved it.
                _, self._of_f16 = self._check("F16 file", source, self._files.reference, Limits())
            required = self._limits(gguf_type, other_weights=False, is_exact=False)
            figures, _ = self._check(f"{gguf_type} file", path, self._of_f16, required)
        return _parity(figures)

    def lora(self, path: Path, base: Path) -> Parity:
        """Prove the adapter's GGUF with an F16 GGUF of the base."""
        other = parity_limits.are_other_weights(self._trained_in_4bit, self._prepared.merge_base, beside_base=True)
        with self._clock.part("prove", "Proving"):
            unproven = lora_tensors.check(path, self._files.adapter, self._files.base)
            _log_unproven(path, unproven)
            reference = self._files.reference
            own = parity_check.true_tokens(base, reference) if other else None
            required = self._limits("F16", other_weights=other, is_exact=not unproven)
            figures, _ = self._check("LoRA GGUF", base, reference, required, base=own, lora=path)
        return _parity(figures)

    def _own_base(self, path: Path, *, is_exact: bool) -> list[list[float]]:
        """Return what the base in the file's own weights predicts."""
        reference = self._files.reference
        lora = self._files.lora_gguf_or_none() if is_exact else None
        if lora is not None:
            # Quicker than another file: what the merge added, and nothing else, is taken away again.
            with self._clock.part("prove", "Proving"):
                return parity_check.true_tokens(path, reference, lora=lora, lora_scale=-1.0)
        base = self._files.base_gguf()
        with self._clock.part("prove", "Proving"):
            found = parity_check.true_tokens(base, reference)
        base.unlink()
        return found

    def _check(
        self,
        name: str,
        path: Path,
        reference: Reference,
        required: Limits,
        *,
        base: list[list[float]] | None = None,
        lora: Path | None = None,
    ) -> tuple[Figures, Reference]:
        bos = self._files.tokenizer.bos_token
        return parity_check.check(name, path, reference, bos, required, base=base, lora=lora)

    def _limits(self, gguf_type: GGUFType, *, other_weights: bool, is_exact: bool) -> Limits:
        return parity_limits.limits(
            gguf_type,
            other_weights=other_weights,
            is_exact=is_exact,
            parameters=self._prepared.model.parameters,
        )


def _log_unproven(path: Path, unproven: list[str]) -> None:
    if unproven:
        log.info("%s: the order of %s, and %d more, is not known here", path.name, unproven[0], len(unproven) - 1)


def _parity(figures: Figures) -> Parity:
    return Parity(kl=_decimal(figures.kl), top1=_decimal(figures.top1), retained_gain=_decimal(figures.retained_gain))


def _decimal(value: float | None) -> str | None:
    return None if value is None else f"{value:.4f}"
