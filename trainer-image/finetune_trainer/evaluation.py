"""How train judges its result: the hold-out rows before, during and after, and the answers before and after."""

import json
import math
from collections.abc import Sequence

from finetune_api.status import EvaluationStatus
from finetune_trainer import prepared, reference
from finetune_trainer.context import Context
from finetune_trainer.curve import Curve
from finetune_trainer.data import template
from finetune_trainer.errors import SettingsError
from finetune_trainer.evaluate import answers, mean_loss, row_losses
from finetune_trainer.load_model import LoadedModel
from finetune_trainer.prepared import Prepared
from finetune_trainer.reference import Prompt, Reference, ReferenceRow
from finetune_trainer.training_rows import SFTRow

ANSWERS = "answers.json"


class Evaluation:
    """One attempt's view of the hold-out rows and the questions. `before` comes first, `write` last."""

    def __init__(self, context: Context, description: Prepared, loaded: LoadedModel, holdout: Sequence[SFTRow]) -> None:
        self._context = context
        self._prepared = description
        self._loaded = loaded
        self._holdout = holdout
        self._folder = context.layout.run(description.run_id)
        self._prompts = self._rendered()
        self._base_losses: list[float] = []
        self._base_answers: list[str] = []
        self._tuned_answers: list[str] = []
        self._reference: Reference | None = None

    def before(self) -> None:
        """Look at the base: the adapter is fresh and changes nothing yet.

        Raises:
            SettingsError: its hold-out loss is no finite number.
        """
        self._base_losses = self._losses(share=50)
        self._base_answers = self._answers(start=50)

    def during(self, step: int) -> float:
        """Return the hold-out loss after `step`, in nats per supervised token.

        The caller restores the model's mode and the random numbers.

        Raises:
            SettingsError: it is no finite number.
        """
        loss = mean_loss(self._holdout, self._losses(share=100))
        assert loss is not None, f"step {step} cannot be judged without hold-out rows"
        return loss

    def after(self, curve: Curve, kept_step: int) -> EvaluationStatus:
        """Look at the adapter that is kept, which is that of `kept_step`.

        Raises:
            SettingsError: its hold-out loss is no finite number.
        """
        losses = self._losses(share=50)
        self._tuned_answers = self._answers(start=50)
        self._reference = self._compared(losses)
        return EvaluationStatus(
            holdout_loss_base=_decimal(mean_loss(self._holdout, self._base_losses)),
            holdout_loss_tuned=_decimal(mean_loss(self._holdout, losses)),
            best_step=kept_step if curve.points else None,
        )

    def write(self) -> None:
        """Put what later stages and people read into the run's folder."""
        questions = [
            {"prompt": q.prompt, "reference": q.reference, "base": base, "tuned": tuned}
            for q, base, tuned in zip(self._prepared.questions, self._base_answers, self._tuned_answers, strict=True)
        ]
        self._put(ANSWERS, json.dumps({"questions": questions}, ensure_ascii=False, indent=2))
        assert self._reference is not None
        self._put(f"{prepared.FOLDER}/{reference.NAME}", self._reference.model_dump_json(by_alias=True))

    def _rendered(self) -> list[Prompt]:
        tokenizer, description = self._loaded.tokenizer, self._prepared
        texts = [
            template.render_prompt(tokenizer, description.chat_template, description.system_prompt, question.prompt)
            for question in description.questions
        ]
        return [Prompt(text=text, input_ids=template.encode(tokenizer, text)) for text in texts]

    def _losses(self, share: int) -> list[float]:
        losses = row_losses(
            self._loaded,
            self._holdout,
            lambda percent: self._context.reporter.report("Evaluating", percent=percent * share // 100),
        )
        if not all(map(math.isfinite, losses)):
            raise SettingsError(
                "the model's hold-out loss is no finite number; lower spec.training.learningRate, or set "
                "spec.training.precision to BF16 where the GPU has it"
            )
        return losses

    def _answers(self, start: int) -> list[str]:
        return answers(
            self._loaded,
            [prompt.input_ids for prompt in self._prompts],
            self._prepared.stop_token_ids,
            self._context.plan.evaluation.max_new_tokens,
            lambda percent: self._context.reporter.report("Evaluating", percent=start + percent * (100 - start) // 100),
        )

    def _compared(self, tuned: Sequence[float]) -> Reference:
        chosen = reference.choose(self._holdout)
        best = reference.top1(self._loaded, [self._holdout[i] for i in chosen])
        rows = [
            ReferenceRow(
                row_id=self._holdout[i].row_id,
                input_ids=self._holdout[i].input_ids,
                completion_mask=self._holdout[i].completion_mask,
                nll_base=self._base_losses[i],
                nll_tuned=tuned[i],
                top1=tokens,
            )
            for i, tokens in zip(chosen, best, strict=True)
        ]
        return Reference(prompts=self._prompts, rows=rows)

    def _put(self, name: str, text: str) -> None:
        self._context.store.put_bytes(f"{self._folder}/{name}", text.encode())


def _decimal(value: float | None) -> str | None:
    return None if value is None else f"{value:.4f}"
