"""The train stage: load, look at the base, train, look at the result, save."""

import contextlib
import hashlib
import json
import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from finetune_api.exit_codes import ExitCode
from finetune_api.plan import TrainingPlan
from finetune_api.result import StageResult
from finetune_api.status import Artifact, Effective, EvaluationStatus, MemoryStatus
from finetune_trainer import (
    adapter,
    adapter_source,
    gpu,
    load_model,
    methods,
    outcome,
    prepared,
    reference,
    training_rows,
)
from finetune_trainer.checkpoints import BackgroundUpload, Checkpoints, sha256_of
from finetune_trainer.context import Context
from finetune_trainer.data import order, template
from finetune_trainer.errors import OutOfGPUMemoryError, Preempted, SettingsError, StageError
from finetune_trainer.evaluate import answers, mean_loss, row_losses
from finetune_trainer.fetch import fetch_weights
from finetune_trainer.load_model import LoadedModel
from finetune_trainer.prepared import Prepared
from finetune_trainer.rung import Rung
from finetune_trainer.stop import StopRequested
from finetune_trainer.training_progress import Cadence, TrainingProgress
from finetune_trainer.training_rows import Row, SFTRow

ADAPTER = adapter.FOLDER
METRICS = "metrics.jsonl"
ANSWERS = "answers.json"
# Weights alone, a lower bound: NF4 with its nested scales, or 16 bit.
_BYTES_PER_PARAMETER = {"NF4": 0.52, "None": 2.0}
_STOPPED = "train was told to stop; it goes on from its last checkpoint by itself"
log = logging.getLogger(__name__)


def run(context: Context) -> StageResult:
    """Train the adapter of prepare's run.

    Raises:
        StageError: with `checkpoint_step`, where a checkpoint can be resumed from.
    """
    description = outcome.read_prepared(context)
    if (finished := _finished_before(context, description)) is not None:
        log.info("this run was trained before; nothing to do")
        return finished
    return _Training(context, description).run()


def _finished_before(context: Context, description: Prepared) -> StageResult | None:
    result = outcome.find(context.store, context.layout, "train")
    if result is None or result.run_id != description.run_id:
        return None
    folder = context.layout.run(description.run_id)
    sizes = {stored.key: stored.size_bytes for stored in context.store.list(f"{folder}/{ADAPTER}")}
    whole = all(sizes.get(f"{folder}/{a.path}") == a.size_bytes for a in result.artifacts)
    return result if result.artifacts and whole else None


class _Training:
    """One attempt: what its parts share, and how long each took."""

    def __init__(self, context: Context, description: Prepared) -> None:
        self.context = context
        self.plan = context.plan
        self.prepared = description
        self.folder = context.layout.run(description.run_id)
        self.timings: dict[str, float] = {}
        self.checkpoint_step: int | None = None

    def run(self) -> StageResult:
        """From the GPU check to the uploaded adapter."""
        try:
            return self._run()
        except StageError as error:
            error.checkpoint_step = self.checkpoint_step
            raise
        except StopRequested as error:
            preempted = Preempted(_STOPPED)
            preempted.checkpoint_step = self.checkpoint_step
            raise preempted from error

    def _run(self) -> StageResult:
        with self._timed("check"):
            device = gpu.find(self.plan.allow_cpu)
            self._check_memory(device)
            rows, holdout = self._rows(prepared.TRAIN_ROWS), self._rows(prepared.HOLDOUT_ROWS)
            steps = self._steps(rows)
            checkpoints = Checkpoints(
                self.context.store, self.context.layout.checkpoints, self.prepared.run_id, _order_sha256(rows, steps)
            )
            newest = checkpoints.newest()
            self.checkpoint_step = newest.step if newest else None
        with self._timed("fetch"):
            weights = fetch_weights(self.context, self.prepared.model)
            start = adapter_source.fetch(self.context, self.prepared.adapter)
        with _named_out_of_memory():
            with self._timed("load"):
                self._report("Loading")
                loaded = load_model.load(self.plan, weights, device, start)
            prompts = self._prompts(loaded)
            with self._timed("evaluateBase"):
                base_losses, answers_base = self._evaluate(loaded, holdout, prompts)
            with self._timed("train"), self.context.stop.deferred():
                trainer, progress = self._train(loaded, rows, steps, checkpoints)
            with self._timed("evaluateTuned"):
                adapter.check_trained(loaded.model, start)
                tuned_losses, answers_tuned = self._evaluate(loaded, holdout, prompts)
                compared = self._reference(loaded, holdout, base_losses, tuned_losses, prompts)
        with self._timed("upload"):
            artifact = self._save(loaded, weights)
            lines = metrics(trainer.state.log_history, rows, steps, progress.step_seconds)
            self._put(METRICS, "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines))
            self._put_answers(answers_base, answers_tuned)
            self._put(f"{prepared.FOLDER}/{reference.NAME}", compared.model_dump_json(by_alias=True))
        log.info("trained %d steps at %.0f supervised tokens/s", len(steps), progress.tokens_per_second or 0)
        return StageResult(
            stage="train",
            exit_code=ExitCode.OK,
            run_id=self.prepared.run_id,
            checkpoint_step=self.checkpoint_step,
            memory=MemoryStatus(peak_mib=gpu.peak_mib()),
            effective=effective(
                trainer, loaded, load_model.checkpointing(self.plan.training.gradient_checkpointing), device
            ),
            evaluation=EvaluationStatus(
                holdout_loss_base=_decimal(mean_loss(holdout, base_losses)),
                holdout_loss_tuned=_decimal(mean_loss(holdout, tuned_losses)),
            ),
            artifacts=[artifact],
            timings={name: round(seconds, 1) for name, seconds in self.timings.items()},
        )

    def _check_memory(self, device: gpu.GPU | None) -> None:
        parameters = self.prepared.model.parameters
        if device is not None and parameters is not None:
            gpu.check_memory(
                device, int(parameters * _BYTES_PER_PARAMETER[self.plan.model.quantization] / (1024 * 1024))
            )

    def _rows(self, name: str) -> list[Any]:
        path = self.context.scratch / Path(name).name
        try:
            self.context.store.get_file(f"{self.folder}/{name}", path)
        except FileNotFoundError as error:
            raise SettingsError(
                f"{self.context.store.uri} has no {self.folder}/{name}: prepare's files are gone; start anew"
            ) from error
        return training_rows.read(path, self.plan.training.method)

    def _steps(self, rows: Sequence[Row]) -> list[list[int]]:
        training = self.plan.training
        chosen = order.steps(
            len(rows), training.batch_size, training.seed, max_steps=training.max_steps, epochs=training.epochs
        )
        steps = methods.ordered(rows, list(chosen))
        assert len(steps) == self.prepared.total_steps
        stops = set(self.prepared.stop_token_ids)
        ending = sum(row.ends_on(stops) for row in rows)
        assert ending >= len(rows) - self.prepared.dataset.truncated, "rows do not end on a learned stop token"
        return steps

    def _prompts(self, loaded: LoadedModel) -> list[reference.Prompt]:
        tokenizer, description = loaded.tokenizer, self.prepared
        texts = [
            template.render_prompt(tokenizer, description.chat_template, description.system_prompt, question.prompt)
            for question in description.questions
        ]
        return [reference.Prompt(text=text, input_ids=template.encode(tokenizer, text)) for text in texts]

    def _evaluate(
        self, loaded: LoadedModel, holdout: Sequence[SFTRow], prompts: Sequence[reference.Prompt]
    ) -> tuple[list[float], list[str]]:
        """Return the loss of each hold-out row and the answer to each question."""
        losses = row_losses(loaded, holdout, lambda percent: self._report("Evaluating", percent=percent // 2))
        if not all(map(math.isfinite, losses)):
            raise SettingsError(
                "the model's hold-out loss is no finite number; lower spec.training.learningRate, or set "
                "spec.training.precision to BF16 where the GPU has it"
            )
        texts = answers(
            loaded,
            [prompt.input_ids for prompt in prompts],
            self.prepared.stop_token_ids,
            self.plan.evaluation.max_new_tokens,
            lambda percent: self._report("Evaluating", percent=50 + percent // 2),
        )
        return losses, texts

    def _reference(
        self,
        loaded: LoadedModel,
        holdout: Sequence[SFTRow],
        base: Sequence[float],
        tuned: Sequence[float],
        prompts: Sequence[reference.Prompt],
    ) -> reference.Reference:
        chosen = reference.choose(holdout)
        best = reference.top1(loaded, [holdout[i] for i in chosen])
        rows = [
            reference.ReferenceRow(
                row_id=holdout[i].row_id,
                input_ids=holdout[i].input_ids,
                completion_mask=holdout[i].completion_mask,
                nll_base=base[i],
                nll_tuned=tuned[i],
                top1=tokens,
            )
            for i, tokens in zip(chosen, best, strict=True)
        ]
        return reference.Reference(prompts=list(prompts), rows=rows)

    def _train(
        self, loaded: LoadedModel, rows: Sequence[Row], steps: Sequence[Sequence[int]], checkpoints: Checkpoints
    ) -> tuple[Any, TrainingProgress]:
        """Train to the end, or to SIGTERM."""
        training = self.plan.training
        folder = self.context.scratch / "trainer"
        resume = self._download_checkpoint(checkpoints, folder)
        upload = BackgroundUpload(checkpoints, self.checkpoint_step)
        progress = TrainingProgress(
            reporter=self.context.reporter,
            stop=self.context.stop,
            upload=upload,
            cadence=Cadence(training.checkpoint_seconds, training.checkpoint_steps),
            step_tokens=[sum(rows[index].supervised for index in step) for step in steps],
            step_rows=[len(step) for step in steps],
            examples=len(rows),
            compiles=loaded.precision != "fp32",
        )
        load_model.for_training(loaded.model)
        try:
            trainer = methods.build(self.plan, loaded, rows, steps, progress, folder, _rung(self.plan.training))
            methods.check_batches(self.plan, trainer, rows, steps[0])
            trainer.train(resume_from_checkpoint=str(resume) if resume else None)
        finally:
            upload.wait()
            self.checkpoint_step = upload.newest_step
        if self.context.stop.requested:
            raise Preempted(_STOPPED)
        assert trainer.state.global_step == len(steps)
        return trainer, progress

    def _download_checkpoint(self, checkpoints: Checkpoints, folder: Path) -> Path | None:
        while (marker := checkpoints.newest()) is not None:
            target = folder / f"checkpoint-{marker.step}"
            if checkpoints.download(marker, target):
                log.info("resuming after step %d", marker.step)
                self.checkpoint_step = marker.step
                return target
            log.warning("the checkpoint of step %d is damaged and is not used", marker.step)
            checkpoints.discard(marker.step)
        self.checkpoint_step = None
        return None

    def _save(self, loaded: LoadedModel, weights: Path) -> Artifact:
        self._report("Saving")
        folder = self.context.scratch / ADAPTER
        adapter.save(loaded.model, self.prepared, weights, folder, self.prepared.chat_template)
        self._report("Uploading")
        files = sorted(p for p in folder.iterdir() if p.is_file())
        for path in files:
            self.context.store.put_file(f"{self.folder}/{ADAPTER}/{path.name}", path)
        tensors = folder / adapter.WEIGHTS
        return Artifact(
            name=ADAPTER,
            type="LoRAAdapter",
            path=f"{ADAPTER}/{adapter.WEIGHTS}",
            size_bytes=tensors.stat().st_size,
            sha256=sha256_of(tensors),
        )

    def _put(self, name: str, text: str) -> None:
        self.context.store.put_bytes(f"{self.folder}/{name}", text.encode())

    def _put_answers(self, base: Sequence[str], tuned: Sequence[str]) -> None:
        questions = [
            {"prompt": q.prompt, "reference": q.reference, "base": b, "tuned": t}
            for q, b, t in zip(self.prepared.questions, base, tuned, strict=True)
        ]
        self._put(ANSWERS, json.dumps({"questions": questions}, ensure_ascii=False, indent=2))

    def _report(self, activity: Any, percent: int | None = None) -> None:
        self.context.reporter.report(activity, percent=percent)

    @contextlib.contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.timings[part] = time.monotonic() - started


def _rung(training: TrainingPlan) -> Rung:
    micro = training.micro_batch_size or (2 if training.batch_size % 2 == 0 else 1)
    checkpointing = training.gradient_checkpointing
    return Rung(micro, "Offload" if checkpointing == "Auto" else checkpointing)


def metrics(
    history: Sequence[dict[str, Any]],
    rows: Sequence[Row],
    steps: Sequence[Sequence[int]],
    seconds: Mapping[int, float],
) -> list[dict[str, Any]]:
    """Return one line per optimizer step: what was learned, from which rows, and how long this attempt took for it."""
    return [
        {
            "step": entry["step"],
            "loss": entry["loss"],
            "gradNorm": entry.get("grad_norm"),
            "learningRate": entry.get("learning_rate"),
            "rows": [rows[index].row_id for index in steps[entry["step"] - 1]],
            "supervisedTokens": sum(rows[index].supervised for index in steps[entry["step"] - 1]),
            "seconds": seconds.get(entry["step"]),
            **methods.figures(entry),
        }
        for entry in history
        if "loss" in entry
    ]


def effective(trainer: Any, loaded: LoadedModel, requested: bool | str, device: gpu.GPU | None) -> Effective:
    """Read back what really ran."""
    optimizer = getattr(trainer.optimizer, "optimizer", trainer.optimizer)
    return Effective(
        micro_batch_size=trainer.args.per_device_train_batch_size,
        gradient_accumulation=trainer.args.gradient_accumulation_steps,
        attention=str(getattr(loaded.model.config, "_attn_implementation", None)),
        precision="BF16" if trainer.args.bf16 else "FP16" if trainer.args.fp16 else "FP32",
        gradient_checkpointing=_checkpointing_read_back(loaded.model, requested, device),
        optimizer=type(optimizer).__name__,
        gpu=device.name if device else "none (CPU)",
        driver=device.driver if device else None,
    )


def _checkpointing_read_back(model: Any, requested: bool | str, device: gpu.GPU | None) -> str:
    if not getattr(model, "is_gradient_checkpointing", False):
        return "None"
    return "Offload" if requested == "unsloth" and device else "Standard"


def _order_sha256(rows: Sequence[Row], steps: Sequence[Sequence[int]]) -> str:
    ids = [[rows[index].row_id for index in step] for step in steps]
    return hashlib.sha256(json.dumps(ids).encode()).hexdigest()


def _decimal(value: float | None) -> str | None:
    return None if value is None else f"{value:.4f}"


@contextlib.contextmanager
def _named_out_of_memory() -> Iterator[None]:
    """Turn the libraries' out-of-memory errors into one that says what to change."""
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        if "out of memory" not in text and "No or negligible GPU memory" not in text:
            raise
        raise OutOfGPUMemoryError(
            "the GPU's memory is too small for this job; lower spec.training.microBatchSize (down to 1; the result "
            "stays the same), then spec.model.maxSequenceLength, or choose a smaller model or a larger GPU"
        ) from error
