"""Evaluates the model before, during and after training: hold-out rows, answers and general questions."""

import json
import math
import statistics
from collections.abc import Callable, Sequence

from finetune_api.report import EvaluationReport
from finetune_api.status import EvaluationStatus
from finetune_trainer.errors import GuardError, SettingsError
from finetune_trainer.evaluation import forgetting, reference
from finetune_trainer.evaluation import warnings as evaluation_warnings
from finetune_trainer.evaluation.curve import Curve
from finetune_trainer.evaluation.generate import Answer
from finetune_trainer.evaluation.questions import Questions, longer_outputs
from finetune_trainer.evaluation.reference import Reference
from finetune_trainer.evaluation.rewards import Rewards, rewards
from finetune_trainer.evaluation.scores import score
from finetune_trainer.evaluation.verdict import compare
from finetune_trainer.methods.interface import LoadedModel, Score
from finetune_trainer.methods.rows import Row
from finetune_trainer.run_folder import prepared, report_json
from finetune_trainer.run_folder.prepared import Prepared
from finetune_trainer.runtime.context import Context
from finetune_trainer.runtime.sigterm import StopRequested

ANSWERS = "answers.json"


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
        self._base_scores: list[Score] = []
        self._base_log_probabilities: list[list[float]] = []
        self._base_answers: list[Answer] = []
        self._instructed_answers: list[Answer] | None = None
        self._reference: Reference | None = None
        self._report: EvaluationReport | None = None
        # What `during` measured last, and after which step.
        self.rewards: Rewards | None = None
        self._latest: tuple[int, list[Score]] | None = None

    def before(self) -> None:
        """Evaluate the model before training: a fresh adapter changes nothing yet.

        Raises:
            SettingsError: its hold-out loss is not finite.
        """
        self._base_scores = self._scores(None, self._progress(0, 40))
        self._base_log_probabilities = reference.log_probabilities(self._loaded, self._compared, self._progress(40, 50))
        self._base_answers = self._questions.ask_without_system_prompt(self._progress(50, 75))
        if self._prepared.system_prompt is not None:
            self._instructed_answers = self._questions.ask(self._progress(75, 100))

    def during(self, step: int) -> float:
        """Return the hold-out loss after `step`: the mean over the rows, each with the same weight.

        The caller restores the model's mode and the random numbers.

        Raises:
            SettingsError: the loss is not a finite number.
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

        scores = self._scores(self._base_scores, advance)
        self.rewards = rewards(scores)
        self._latest = step, scores
        return statistics.fmean(s.loss for s in scores)

    def after(self, curve: Curve, kept_step: int) -> EvaluationStatus:
        """Evaluate the adapter that is kept, which is that of `kept_step`.

        Raises:
            SettingsError: its hold-out loss is not finite.
        """
        if self._latest is not None and self._latest[0] == kept_step:
            scores = self._latest[1]
        else:
            scores = self._scores(self._base_scores, self._progress(0, 40))
        tuned_answers = self._questions.ask(self._progress(40, 70))
        general = forgetting.tokenize(self._loaded.tokenizer, self._prepared.chat_template, forgetting.questions())
        moved = forgetting.divergence(self._loaded, general, self._progress(70, 90))
        self._reference = self._compare_with_reference(self._progress(90, 100))
        comparison = compare([s.loss for s in self._base_scores], [s.loss for s in scores])
        judged = rewards(scores)
        answers = self._questions.compare(self._base_answers, self._instructed_answers, tuned_answers, self._trained)
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
                kept_step=kept_step,
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
            raise SettingsError(
                "the model's hold-out loss is not finite; lower spec.training.learningRate, or set "
                "spec.training.precision to BF16 where the GPU has it"
            )
        return scores

    def _compare_with_reference(self, advance: Callable[[int], None]) -> Reference:
        rows = reference.compare(self._loaded, self._compared, self._base_log_probabilities, advance)
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
        warnings=report.warnings,
    )


def _decimal(value: float | None) -> str | None:
    return None if value is None else f"{value:.4f}"
