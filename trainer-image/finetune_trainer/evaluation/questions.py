"""The questions that are answered before and after training, and how the answers compare."""

from collections.abc import Callable, Sequence

from finetune_api.report import AnswerFlag, AnswerFlags, AnswerReport
from finetune_trainer.data.tokens import chat_template
from finetune_trainer.evaluation import answer_flags
from finetune_trainer.evaluation.generate import Answer, answers
from finetune_trainer.evaluation.reference import Prompt
from finetune_trainer.methods.interface import LoadedModel
from finetune_trainer.methods.rows import Row
from finetune_trainer.run_folder.prepared import Prepared


class Questions:
    """Asks the same questions of the model as it is at the time."""

    def __init__(self, loaded: LoadedModel, description: Prepared, max_new_tokens: int) -> None:
        self._loaded = loaded
        self._prepared = description
        self._max_new_tokens = max_new_tokens
        # As the model is trained to be asked: with the job's system prompt, where there is one.
        self.prompts = self._rendered(description.system_prompt)

    def ask(self, advance: Callable[[int], None]) -> list[Answer]:
        """Return the answers with the job's system prompt."""
        return self._ask(self.prompts, advance)

    def ask_without_system_prompt(self, advance: Callable[[int], None]) -> list[Answer]:
        """Return the answers to the questions alone."""
        return self._ask(self._rendered(None), advance)

    def compare(
        self,
        base: Sequence[Answer],
        instructed: Sequence[Answer] | None,
        tuned: Sequence[Answer],
        trained: Sequence[Row],
    ) -> list[AnswerReport]:
        """Return question by question what was answered.

        `instructed` are the base's answers with the job's system prompt, None where there is none; `trained` are the
        training rows.
        """
        reports = []
        # Once for all answers: there may be a hundred thousand rows.
        training_answers = [
            self._loaded.tokenizer.decode(row.sequence.learned, skip_special_tokens=True) for row in trained
        ]
        for index, question in enumerate(self._prepared.questions):

            def flags(answer: Answer, index: int = index) -> list[AnswerFlag]:
                asked = self._prepared.questions[index]
                return answer_flags.flags(
                    answer.text,
                    stopped=answer.stopped,
                    question=asked.prompt,
                    reference=asked.reference,
                    training_answers=training_answers,
                )

            other = instructed[index] if instructed is not None else None
            reports.append(
                AnswerReport(
                    prompt=question.prompt,
                    reference=question.reference,
                    base=base[index].text,
                    base_with_system_prompt=other.text if other else None,
                    tuned=tuned[index].text,
                    flags=AnswerFlags(
                        base=flags(base[index]),
                        base_with_system_prompt=flags(other) if other else None,
                        tuned=flags(tuned[index]),
                    ),
                )
            )
        return reports

    def _rendered(self, system_prompt: str | None) -> list[Prompt]:
        tokenizer = self._loaded.tokenizer
        texts = [
            chat_template.render_prompt(tokenizer, self._prepared.chat_template, system_prompt, question.prompt)
            for question in self._prepared.questions
        ]
        return [Prompt(text=text, input_ids=chat_template.encode(tokenizer, text)) for text in texts]

    def _ask(self, prompts: Sequence[Prompt], advance: Callable[[int], None]) -> list[Answer]:
        return answers(
            self._loaded,
            [prompt.input_ids for prompt in prompts],
            self._prepared.stop_token_ids,
            self._max_new_tokens,
            advance,
        )


def longer_outputs(trained: Sequence[Row], max_new_tokens: int) -> float:
    """Return the share of the training rows whose answer, with its stop token, has more tokens than that."""
    return sum(len(row.sequence.learned) > max_new_tokens for row in trained) / len(trained) if trained else 0.0
