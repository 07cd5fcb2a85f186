"""Evaluates the model before, during and after training: hold-out rows, answers and general questions."""

import json
import math
import statistics
import time
from collections.abc import Callable, Sequence

from finetune_api.report import EvaluationReport
from finetune_api.status import EvaluationStatus
from finetune_trainer.errors import GuardError, SettingsError
from finetune_trainer.evaluation import forgetting, reference
from finetune_trainer.evaluation import warnings as evaluation_warnings
from finetune_trainer.evaluation.curve import Curve
from finetune_trainer.evaluation.kept_base import BaseEvaluation, KeptBase
from finetune_trainer.evaluation.questions import Questions, longer_outputs
from finetune_trainer.evaluation.reference import Reference
from finetune_trainer.evaluation.rewards import Rewards, rewards
from finetune_trainer.evaluation.scores import score
from finetune_trainer.evaluation.verdict import Comparison, compare
from finetune_trainer.methods.interface import LoadedModel, Score
from finetune_trainer.methods.rows import Row
from finetune_trainer.run_folder import prepared, report_json
from finetune_trainer.run_folder.prepared import Prepared
from finetune_trainer.runtime.context import Context
from finetune_trainer.runtime.sigterm import StopRequested

ANSWERS = "answers.json"
# That the status takes; the report has all.
_MAXIMUM_WARNINGS = 4


class NotFiniteError(Exception):
    """A hold-out loss is no number."""


class Evaluation:
    """The evaluation of one attempt: call `before`, `during` at some steps, `after`, then `write`.

    `holdout` and `trained` are rows of the method: those to judge by, and those that the model learns from.
    """

    def __init__(
        self,
        context: Context,
        description: Prepared,
        loaded: LoadedModel,
        holdout: Sequence[Row],
        trained: Sequence[Row],
    ) -> None:
        self._context = context
        self._loaded = loaded
        self._holdout = holdout
        self._trained = trained
        self._prepared = description
        self._folder = context.layout.run(description.run_id)
        self._questions = Questions(loaded, description, context.plan.evaluation.max_new_tokens)
        self._compared = reference.choose(holdout, trained)
        self._base = BaseEvaluation(scores=[], log_probabilities=[], answers=[])
        self._reference: Reference | None = None
        self._report: EvaluationReport | None = None
        # What `during` measured last, and after which step.
        self.rewards: Rewards | None = None
        self._latest: tuple[int, list[Score]] | None = None

    def before(self) -> None:
        """Evaluate the model before training: a fresh adapter changes nothing yet.

        A resumed attempt does not repeat that.

        Raises:
            SettingsError: its hold-out loss is not finite.
            StageError: the bucket cannot be read or written.
        """
        inputs = (
            self._prepared.run_id,
            self._loaded.precision,
            [row.row_id for row in self._holdout],
            [compared.row.row_id for compared in self._compared],
            [prompt.input_ids for prompt in self._questions.prompts],
            self._context.plan.evaluation.max_new_tokens,
        )
        kept = KeptBase(self._context.store, self._context.layout.state, inputs)
        self._base = kept.get(self._evaluate_base)

    def _evaluate_base(self) -> BaseEvaluation:
        started = time.monotonic()
        try:
            scores = self._scores(None, self._progress(0, 40))
        except NotFiniteError:
            raise SettingsError(
                "the model's hold-out loss is not finite before training; set spec.training.precision to BF16 where "
                "the GPU has it, or use another model"
            ) from None
        scored = time.monotonic()
        instructed = self._prepared.system_prompt is not None
        measured = BaseEvaluation(
            scores=scores,
            log_probabilities=reference.log_probabilities(self._loaded, self._compared, self._progress(40, 50)),
            answers=self._questions.ask_without_system_prompt(self._progress(50, 75)),
            instructed_answers=self._questions.ask(self._progress(75, 100)) if instructed else None,
            scoring_seconds=scored - started,
        )
        return measured.model_copy(update={"seconds": time.monotonic() - started})

    @property
    def scoring_seconds(self) -> float:
        """How long the hold-out rows took before training."""
        return self._base.scoring_seconds

    @property
    def base_seconds(self) -> float:
        """How long all that was measured before training took."""
        return self._base.seconds

    @property
    def base_loss(self) -> float | None:
        """The hold-out loss before training; None without hold-out rows."""
        return statistics.fmean(s.loss for s in self._base.scores) if self._base.scores else None

    def during(self, step: int) -> float:
        """Return the hold-out loss after `step`: the mean over the rows, each with the same weight.

        The caller restores the model's mode and the random numbers.

        Raises:
            NotFiniteError: the loss is no number.
            StopRequested: the pod must stop; the rows may take longer than its grace period.
            GuardError: there are no hold-out rows.
        """
        if not self._holdout:
            raise GuardError(f"the result of step {step} was to be evaluated without hold-out rows")
        shown = self._progress(0, 100, step)

        def advance(percent: int) -> None:
            if self._context.stop.requested:
                raise StopRequested
            shown(percent)

        scores = self._scores(self._base.scores, advance)
        self.rewards = rewards(scores)
        self._latest = step, scores
        return statistics.fmean(s.loss for s in scores)

    def compare(self, kept_step: int) -> Comparison | None:
        """Compare the adapter that is kept, which is that of `kept_step`, with the base; None without hold-out rows.

        Raises:
            NotFiniteError: its hold-out loss is no number.
        """
        if self._latest is None or self._latest[0] != kept_step:
            self._latest = kept_step, self._scores(self._base.scores, self._progress(0, 40))
        return compare([s.loss for s in self._base.scores], [s.loss for s in self._latest[1]])

    def after(self, curve: Curve, kept_step: int, diverged: str | None = None) -> EvaluationStatus:
        """Evaluate the adapter that is kept, which is that of `kept_step`.

        `diverged`: the warning about a training that diverged after it.

        Raises:
            NotFiniteError: its hold-out loss is no number.
        """
        comparison = self.compare(kept_step)
        assert self._latest is not None
        scores = self._latest[1]
        tuned_answers = self._questions.ask(self._progress(40, 70))
        general = forgetting.tokenize(self._loaded.tokenizer, self._prepared.chat_template, forgetting.questions())
        moved = forgetting.divergence(self._loaded, general, self._progress(70, 90))
        self._reference = self._compare_with_reference(self._progress(90, 100))
        judged = rewards(scores)
        answers = self._questions.compare(
            self._base.answers, self._base.instructed_answers, tuned_answers, self._trained
        )
        found = EvaluationReport(
            verdict=comparison.verdict if comparison else "NotEnoughEvidence",
            sentence=comparison.sentence if comparison else "There are no hold-out rows to judge the result.",
            holdout_rows=len(self._holdout),
            holdout_loss_base=comparison.base if comparison else None,
            holdout_loss_tuned=comparison.tuned if comparison else None,
            standard_error=comparison.standard_error if comparison else None,
            reward_accuracy=judged.accuracy if judged else None,
            reward_margin=judged.margin if judged else None,
            forgetting=moved,
            warnings=evaluation_warnings.warnings(
                comparison=comparison,
                curve=curve,
                diverged=diverged,
                kept_step=kept_step,
                total_steps=self._prepared.total_steps,
                patience=self._context.plan.training.early_stopping_patience,
                forgetting=moved,
                forgetting_limit=forgetting.LIMIT,
                answer_flags=[answer.flags.tuned for answer in answers],
                longer_outputs=longer_outputs(self._trained, self._context.plan.evaluation.max_new_tokens),
            ),
            max_new_tokens=self._context.plan.evaluation.max_new_tokens,
            answers=answers,
        )
        self._report = found
        return status(found, kept_step if curve.points else None)

    def write(self) -> None:
        """Write answers, reference and report to the run's folder.

        Raises:
            GuardError: `after` was not called.
        """
        if self._report is None or self._reference is None:
            raise GuardError("the evaluation was to be written before it was complete")
        answers = [answer.model_dump(mode="json", by_alias=True) for answer in self._report.answers]
        self._put(ANSWERS, json.dumps({"questions": answers}, ensure_ascii=False, indent=2))
        self._put(f"{prepared.FOLDER}/{reference.NAME}", self._reference.model_dump_json(by_alias=True))
        report_json.add(self._context.store, self._folder, evaluation=self._report)

    def _scores(self, base: Sequence[Score] | None, advance: Callable[[int], None]) -> list[Score]:
        scores = score(self._context.plan, self._loaded, self._holdout, advance, base)
        if not all(math.isfinite(s.loss) for s in scores):
            raise NotFiniteError
        return scores

    def _compare_with_reference(self, advance: Callable[[int], None]) -> Reference:
        rows = reference.compare(self._loaded, self._compared, self._base.log_probabilities, advance)
        return Reference(
            prompts=self._questions.prompts,
            probes=reference.probes(self._loaded.tokenizer),
            rows=rows,
            parameters=self._prepared.model.parameters,
        )

    def _progress(self, start: int, end: int, step: int | None = None) -> Callable[[int], None]:
        total = None if step is None else self._prepared.total_steps

        def advance(percent: int) -> None:
            done = start + percent * (end - start) // 100
            self._context.reporter.report("Evaluating", step=step, total_steps=total, percent=done)

        return advance

    def _put(self, name: str, text: str) -> None:
        self._context.store.put_bytes(f"{self._folder}/{name}", text.encode())


def status(report: EvaluationReport, best_step: int | None) -> EvaluationStatus:
    """Return the figures for the job's status, without any text of the dataset."""
    return EvaluationStatus(
        holdout_loss_base=_decimal(report.holdout_loss_base),
        holdout_loss_tuned=_decimal(report.holdout_loss_tuned),
        standard_error=_decimal(report.standard_error),
        verdict=report.verdict,
        best_step=best_step,
        reward_accuracy=_decimal(report.reward_accuracy),
        reward_margin=_decimal(report.reward_margin),
        forgetting=_decimal(report.forgetting),
        warnings=report.warnings[:_MAXIMUM_WARNINGS],
    )


def _decimal(value: float | None) -> str | None:
    return None if value is None else f"{value:.4f}"
