"""One attempt at training, in a process of its own: load, evaluate the base, train, evaluate the result, save."""

import contextlib
import json
import logging
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from finetune_api.exit_codes import ExitCode
from finetune_api.memory import Shape
from finetune_api.result import StageResult
from finetune_api.status import Artifact, MemoryStatus
from finetune_trainer import methods
from finetune_trainer.data import step_order
from finetune_trainer.errors import Preempted, SettingsError
from finetune_trainer.evaluation.curve import evaluation_steps, measurements
from finetune_trainer.evaluation.evaluation import Evaluation, NotFiniteError
from finetune_trainer.gpu import device as gpu_device
from finetune_trainer.gpu.device import GPU
from finetune_trainer.gpu.memory_fallback import Shortage, in_words
from finetune_trainer.gpu.memory_settings import MemorySettings
from finetune_trainer.methods.interface import LoadedModel
from finetune_trainer.methods.rows import Row
from finetune_trainer.model import adapter, base_weights, earlier_adapter, memory_fit
from finetune_trainer.model import load as load_model
from finetune_trainer.run_folder import prepared, report_json
from finetune_trainer.run_folder.prepared import Prepared
from finetune_trainer.runtime.context import Context
from finetune_trainer.runtime.sigterm import StopRequested
from finetune_trainer.sources.model import fetch_weights
from finetune_trainer.storage.checksum import sha256_of
from finetune_trainer.train import guards, tracking
from finetune_trainer.train import record as training_record
from finetune_trainer.train.checkpoints import BackgroundUpload, Checkpoints, Marker, checkpoint_folder
from finetune_trainer.train.divergence import DivergenceWatch, Remedy, conclude
from finetune_trainer.train.holdout_watch import HoldoutWatch
from finetune_trainer.train.messages import STOPPED, Files, Run, Start
from finetune_trainer.train.preserved_state import undisturbed
from finetune_trainer.train.ranks.ranks import Ranks
from finetune_trainer.train.ranks.shard import filled, part
from finetune_trainer.train.ranks.step_sync import LeaderSync
from finetune_trainer.train.step_control import Cadence, StepControl
from finetune_trainer.train.tracking import Tracker

# Weights alone, a lower bound: NF4 with its nested scales, or 16 bit.
_BYTES_PER_PARAMETER = {"NF4": 0.52, "None": 2.0}
log = logging.getLogger(__name__)


class Leader:
    """The process that leads: it alone writes the bucket, reports progress and judges the result."""

    def __init__(
        self,
        context: Context,
        description: Prepared,
        memory_settings: MemorySettings | None,
        weights: Path | None,
        ranks: Ranks,
    ) -> None:
        """`memory_settings`: None lets the memory estimate choose.

        `weights`: the model's files if they were fetched before. `ranks`: this process's place among those it leads.
        """
        self.context = context
        self.ranks = ranks
        self.plan = context.plan
        self.prepared = description
        self.folder = context.layout.run(description.run_id)
        self.memory_settings = memory_settings
        self.weights = weights
        self.device: GPU | None = None
        self.timings: dict[str, float] = {}
        # The newest complete checkpoint in the bucket.
        self.checkpoint_step: int | None = None
        self._loading = False
        self._tracker: Tracker | None = None

    def shortage(self, error: BaseException) -> Shortage | None:
        """Return how much GPU memory an error reports as missing, or None if it is another error."""
        return gpu_device.shortage(self.device, error) if self._loading else None

    def run(self) -> StageResult:
        """From the GPU check to the uploaded adapter.

        Raises:
            StageError: see `errors`.
            StopRequested: SIGTERM came while there was nothing to save.
        """
        try:
            return self._run()
        except BaseException as error:
            continues = isinstance(error, (Preempted, StopRequested)) or self.shortage(error) is not None
            self._close_tracker(tracking.Outcome("KILLED" if continues else "FAILED"))
            raise

    def _run(self) -> StageResult:
        with self._timed("check"):
            self.device = gpu_device.find(self.plan.allow_cpu)
            self._check_memory()
            rows, holdout = self._rows(prepared.TRAIN_ROWS), self._rows(prepared.HOLDOUT_ROWS)
            steps = self._steps(rows)
            checkpoints = Checkpoints(
                self.context.store,
                self.context.layout.checkpoints,
                self.prepared.run_id,
                training_record.order_sha256(rows, steps),
            )
            newest = checkpoints.newest()
            self.checkpoint_step = newest.step if newest else None
        with self._timed("fetch"):
            self.weights = weights = self.weights or fetch_weights(self.context, self.prepared.model)
            start = earlier_adapter.fetch(self.context, self.prepared.adapter)
        with self._timed("load"):
            self.memory_settings = memory_settings = self.memory_settings or self._first_settings(weights, rows, steps)
            log.info("training with %s", in_words(memory_settings))
            self.ranks.broadcast(Start(memory_settings, steps))
            # Other pods may still be fetching.
            self.ranks.broadcast_in_pod(Files(weights, start))
            self._report("Loading")
            self._loading = True
            loaded = load_model.load(self.plan, weights, self.device, memory_settings, start)
            found = base_weights.loading(loaded.model, loaded.precision)
            self.context.store.put_bytes(
                f"{self.folder}/{base_weights.NAME}", found.model_dump_json(by_alias=True).encode()
            )
        evaluation = Evaluation(self.context, self.prepared, loaded, holdout, rows)
        with self._timed("evaluateBase"):
            evaluation.before()
        watch = self._watch(loaded, evaluation, steps, holdout, start)
        with self._timed("train"), self.context.stop.deferred():
            divergence = DivergenceWatch(evaluation.base_loss)
            trainer, control = self._train(
                loaded, evaluation, rows, steps, checkpoints, watch, divergence, memory_settings
            )
        with self._timed("evaluateTuned"):
            last_step = trainer.state.global_step
            kept_step = watch.restore(loaded.model, last_step)
            adapter.check_trained(loaded.model, start)
            diverged = self._conclude(loaded, divergence, evaluation, kept_step)
            judged = evaluation.after(watch.curve, kept_step, diverged)
        ran = training_record.effective(trainer, loaded, memory_settings, self.device, self.ranks.size)
        memory = MemoryStatus(
            estimated_mib=self._estimated_mib(weights, memory_settings, rows, steps), peak_mib=gpu_device.peak_mib()
        )
        with self._timed("upload"):
            artifact = self._save(loaded, weights)
            lines = training_record.metrics(trainer.state.log_history, rows, steps, control.step_seconds)
            text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
            self.context.store.put_bytes(f"{self.folder}/{training_record.METRICS}", text.encode())
            evaluation.write()
            self._close_tracker(tracking.Outcome("FINISHED", {"verdict": judged.verdict} if judged.verdict else {}))
        timings = {name: round(seconds, 1) for name, seconds in self.timings.items()}
        report = training_record.report(lines, watch.curve, kept_step, ran, memory)
        report_json.add(self.context.store, self.folder, training=report, timings=timings)
        log.info("trained %d steps at %.0f supervised tokens/s", last_step, control.tokens_per_second or 0)
        return StageResult(
            stage="train",
            exit_code=ExitCode.OK,
            run_id=self.prepared.run_id,
            checkpoint_step=self.checkpoint_step,
            memory=memory,
            effective=ran,
            evaluation=judged,
            artifacts=[artifact],
            timings=timings,
        )

    def _check_memory(self) -> None:
        parameters = self.prepared.model.parameters
        if self.device is not None and parameters is not None:
            gpu_device.check_memory(
                self.device, int(parameters * _BYTES_PER_PARAMETER[self.plan.model.quantization] / (1024 * 1024))
            )

    def _rows(self, name: str) -> list[Any]:
        path = self.context.scratch / Path(name).name
        try:
            self.context.store.get_file(f"{self.folder}/{name}", path)
        except FileNotFoundError as error:
            raise SettingsError(
                f"{self.context.store.uri} has no {self.folder}/{name}: prepare's files were deleted; "
                "delete this FineTuneJob and create it again"
            ) from error
        return methods.of(self.plan.training.method).read(path)

    def _steps(self, rows: Sequence[Row]) -> list[list[int]]:
        training = self.plan.training
        chosen = step_order.steps(
            len(rows), training.batch_size, training.seed, max_steps=training.max_steps, epochs=training.epochs
        )
        steps = methods.ordered(rows, list(chosen))
        guards.check_steps(len(steps), self.prepared)
        guards.check_rows(rows, self.prepared)
        return steps

    def _first_settings(self, weights: Path, rows: Sequence[Row], steps: Sequence[Sequence[int]]) -> MemorySettings:
        return memory_fit.first_settings(
            self.plan,
            _shape(weights),
            _lengths(rows, steps),
            self.device.free_mib if self.device else None,
            self.ranks.size,
        )

    def _estimated_mib(
        self, weights: Path, memory_settings: MemorySettings, rows: Sequence[Row], steps: Sequence[Sequence[int]]
    ) -> int | None:
        shape = _shape(weights)
        if shape is None or self.device is None:
            return None
        return memory_fit.estimate(self.plan, shape, memory_settings, _lengths(rows, steps), self.ranks.size).total_mib

    def _watch(
        self,
        loaded: LoadedModel,
        evaluation: Evaluation,
        steps: Sequence[Sequence[int]],
        holdout: Sequence[Row],
        start: Path | None,
    ) -> HoldoutWatch:
        def measure(step: int) -> float:
            try:
                with undisturbed(loaded.model):
                    loss = evaluation.during(step)
            except NotFiniteError:
                return math.nan
            assert self._tracker is not None
            self._tracker.log(step, tracking.holdout_figures(loss, evaluation.rewards))
            return loss

        training = self.plan.training
        times = measurements(sum(map(len, steps)), len(holdout)) if holdout else 0
        return HoldoutWatch(
            evaluation_steps(len(steps), times),
            measure,
            lambda: adapter.changed(loaded.model, start),
            self.context.scratch / "best",
            keep_best=training.keep == "Best",
            patience=training.early_stopping_patience,
        )

    def _train(
        self,
        loaded: LoadedModel,
        evaluation: Evaluation,
        rows: Sequence[Row],
        steps: Sequence[Sequence[int]],
        checkpoints: Checkpoints,
        watch: HoldoutWatch,
        divergence: DivergenceWatch,
        memory_settings: MemorySettings,
    ) -> tuple[Any, StepControl]:
        """Train to the end, to an early stop, until it diverges, or to SIGTERM."""
        from transformers import TrainerState

        training = self.plan.training
        folder = self.context.scratch / "trainer"
        marker = self._download_checkpoint(checkpoints, folder)
        resume = checkpoint_folder(folder, marker.step) if marker else None
        self._tracker = tracking.open(self.context, self.prepared, self.checkpoint_step or 0)
        upload = BackgroundUpload(checkpoints, self.checkpoint_step)
        control = StepControl(
            reporter=self.context.reporter,
            stop=self.context.stop,
            upload=upload,
            holdout=watch,
            divergence=divergence,
            cadence=Cadence(training.checkpoint_seconds, training.checkpoint_steps),
            step_tokens=[sum(rows[index].supervised for index in step) for step in steps],
            step_rows=[len(step) for step in steps],
            examples=len(rows),
            compiles=loaded.precision != "fp32",
            measuring_seconds=evaluation.scoring_seconds,
            judging_seconds=evaluation.base_seconds,
        )
        load_model.for_training(loaded.model)
        # Before the checkpoint is restored: the adapter as it is now is the reference of DPO and KTO.
        trainer = self._build(loaded, rows, steps, control, folder, memory_settings)
        trainer.add_callback(training_record.tracked(self._tracker, control))
        done = 0
        if resume is not None and self.checkpoint_step is not None:
            done = self.checkpoint_step
            for loss in training_record.losses(resume):
                divergence.add(loss)
            self._restore(loaded, watch, checkpoints, done, resume, measures=divergence.found is None)
        ended = watch.ended or divergence.found is not None
        trains = resume is None or (done < len(steps) and not ended)
        self.ranks.broadcast(Run(marker, trains))
        if not trains:
            assert resume is not None
            trainer.state = TrainerState.load_from_json(str(resume / "trainer_state.json"))
        else:
            if resume is not None:
                self.ranks.broadcast_in_pod(resume)
            try:
                trainer.train(resume_from_checkpoint=str(resume) if resume else None)
            finally:
                upload.wait()
                self.checkpoint_step = upload.newest_step
        if self.context.stop.requested:
            raise Preempted(STOPPED)
        guards.check_end(trainer.state.global_step, len(steps), ended_early=watch.ended or divergence.found is not None)
        return trainer, control

    def _build(
        self,
        loaded: LoadedModel,
        rows: Sequence[Row],
        steps: Sequence[Sequence[int]],
        control: StepControl,
        folder: Path,
        memory_settings: MemorySettings,
    ) -> Any:
        ranks, stop = self.ranks, self.context.stop
        whole_rows, whole_steps = filled(rows, steps, self.plan, ranks)
        synchronized = LeaderSync(control, ranks, stop, self.plan.training.seed)
        trainer = methods.build(
            self.plan, loaded, whole_rows, whole_steps, synchronized, folder, memory_settings, ranks.size
        )
        first = part(whole_steps[0], memory_settings.micro_batch_size, ranks)
        methods.check_batches(self.plan, trainer, whole_rows, first)
        return trainer

    def _conclude(
        self, loaded: LoadedModel, divergence: DivergenceWatch, evaluation: Evaluation, kept_step: int
    ) -> str | None:
        """See `divergence.conclude`."""
        comparison, finite = None, adapter.is_finite(loaded.model)
        if finite:
            try:
                comparison = evaluation.compare(kept_step)
            except NotFiniteError:
                finite = False
        remedy = Remedy(self.plan.training.learning_rate, loaded.precision)
        return conclude(divergence, comparison, remedy, finite=finite, kept_step=kept_step)

    def _restore(
        self,
        loaded: LoadedModel,
        watch: HoldoutWatch,
        checkpoints: Checkpoints,
        step: int,
        folder: Path,
        *,
        measures: bool,
    ) -> None:
        """Restore the adapter and the curve, and measure what the interrupted attempt did not."""
        adapter.start_from(loaded.model, folder)
        watch.resume(step, folder, checkpoints)
        if measures and watch.due(step):
            watch.measure(step)
            watch.saved(folder, step)

    def _download_checkpoint(self, checkpoints: Checkpoints, folder: Path) -> Marker | None:
        while (marker := checkpoints.newest()) is not None:
            if checkpoints.download(marker, checkpoint_folder(folder, marker.step)):
                log.info("resuming after step %d", marker.step)
                self.checkpoint_step = marker.step
                return marker
            log.warning("the checkpoint of step %d is damaged and is not used", marker.step)
            checkpoints.discard(marker.step)
        self.checkpoint_step = None
        return None

    def _save(self, loaded: LoadedModel, weights: Path) -> Artifact:
        self._report("Saving")
        folder = self.context.scratch / adapter.FOLDER
        adapter.save(loaded.model, self.prepared, weights, folder, self.prepared.chat_template)
        self._report("Uploading")
        files = sorted(p for p in folder.iterdir() if p.is_file())
        for path in files:
            self.context.store.put_file(f"{self.folder}/{adapter.FOLDER}/{path.name}", path)
        tensors = folder / adapter.WEIGHTS
        return Artifact(
            name=adapter.FOLDER,
            type="LoRAAdapter",
            path=f"{adapter.FOLDER}/{adapter.WEIGHTS}",
            size_bytes=tensors.stat().st_size,
            sha256=sha256_of(tensors),
        )

    def _close_tracker(self, ended: tracking.Outcome) -> None:
        if self._tracker is not None:
            self._tracker.close(ended)
            self._tracker = None

    def _report(self, activity: Any) -> None:
        self.context.reporter.report(activity)

    @contextlib.contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.timings[part] = time.monotonic() - started


def _shape(weights: Path) -> Shape | None:
    return Shape.of(json.loads((weights / "config.json").read_text(encoding="utf-8")))


def _lengths(rows: Sequence[Row], steps: Sequence[Sequence[int]]) -> list[list[int]]:
    return [[rows[index].length for index in step] for step in steps]
