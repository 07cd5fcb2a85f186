"""The checks over all rows together, and which rows they leave out."""

from typing import Any, Literal

from finetune_api.report import MAXIMUM_PLACES, CheckReport, Duplicates, Place
from finetune_trainer.data.checks import endings, near_duplicates, repetition
from finetune_trainer.data.rows.collect import Collected
from finetune_trainer.data.rows.row_names import first_places, listed, number_of_rows, place_of
from finetune_trainer.data.rows.table import PERSONAL, Flag

_PERSONAL_NAMES = {
    Flag.RESIDENT_NUMBER: "resident registration numbers",
    Flag.CARD: "card numbers",
    Flag.PHONE: "phone numbers",
    Flag.MAIL: "e-mail addresses",
}
# A beginning of at least this many conversations, and this share of them, is a greeting or sets a role.
_MANY_GREETINGS = 20
_GREETING_SHARE = 0.2


class Findings:
    """The findings about the collected rows, and which rows are used."""

    def __init__(self, collected: Collected, duplicates: Literal["Drop", "Keep"]) -> None:
        import numpy as np

        self.collected = collected
        self.checks: list[CheckReport] = []
        rows = len(collected.table)
        # Hashes (uint64) of the first question that is not a greeting. Rows with the same one stay on one side of the
        # split.
        self.question = repetition.unless_common(
            collected.table.column("question"), collected.table.column("opening"), _MANY_GREETINGS, _GREETING_SHARE
        )
        # Which rows are used.
        self.kept = np.ones(rows, bool)
        # Rows with one number stay on one side of the split.
        self.group = np.arange(rows)
        held = [source.holdout for source in collected.sources]
        self.holdout = np.array(held, bool)[collected.table.column("source")]
        self.duplicates = Duplicates(exact=0, near=0)
        self.invalid = collected.invalid
        # The first invalid rows, with their reasons.
        self.invalid_places = list(collected.invalid_places)
        if rows:
            self._find_duplicates(duplicates)
            self._check_answers()

    @property
    def examples(self) -> int:
        """How many rows are used."""
        return int(self.kept.sum())

    @property
    def dropped_duplicates(self) -> int:
        """How many rows are left out as duplicates of an earlier one."""
        return sum(c.count for c in self.checks if c.severity == "Drop")

    def reject(self, index: int, reason: str) -> None:
        """Leave out a row as invalid."""
        self.kept[index] = False
        self.invalid += 1
        if len(self.invalid_places) < MAXIMUM_PLACES:
            place = place_of(self.collected.table, self.collected.sources, index)
            self.invalid_places.append(place.model_copy(update={"reason": reason}))

    def drop(self, rows: Any) -> None:
        """Leave out the rows of a bool array."""
        self.kept &= ~rows

    def places(self, rows: Any) -> list[Place]:
        """Return the first of the rows of a bool array."""
        return first_places(self.collected.table, self.collected.sources, rows)

    def _find_duplicates(self, wanted: Literal["Drop", "Keep"]) -> None:
        import numpy as np

        table = self.collected.table
        # Hold-out rows come first, so that the training row of a pair is left out.
        order = np.argsort(~self.holdout, kind="stable")
        origin = np.empty(len(table), np.int64)
        origin[order] = order[repetition.first_with(table.column("exact")[order])]
        exact = origin != np.arange(len(table))
        # Indices from here on are into `alone`.
        alone = order[~exact[order]]
        alike = near_duplicates.pairs(table.signature[alone], table.column("guard")[alone])
        near_alone = near_duplicates.later_ones(alike, len(alone))
        near = np.zeros(len(table), bool)
        near[alone] = near_alone
        leaked = self._leaked(origin, alone, alike)
        self.duplicates = Duplicates(exact=int(exact.sum()), near=int(near.sum()))
        self.group = self._groups(origin, alone, alike)
        if leaked.any():
            self.drop(leaked)
            places = self.places(leaked)
            count = int(leaked.sum())
            message = (
                f"also in dataset.holdout.sources and not trained on: {number_of_rows(count)} of dataset.sources, "
                f"first {listed(places)}"
            )
            self.checks.append(
                CheckReport(name="HoldoutInTraining", severity="Drop", count=count, places=places, message=message)
            )
        self._report_duplicates(wanted, "ExactDuplicates", exact & ~leaked, "the same as")
        self._report_duplicates(wanted, "NearDuplicates", near & ~leaked, "nearly the same as")

    def _leaked(self, origin: Any, alone: Any, alike: Any) -> Any:
        """Return which training rows are also in the hold-out sources, exactly or nearly."""
        import numpy as np

        leaked = np.zeros(len(origin), bool)
        earlier, later = alone[alike[:, 0]], alone[alike[:, 1]]
        leaked[later[self.holdout[earlier]]] = True
        # A copy counts as its original does.
        leaked |= self.holdout[origin] | leaked[origin]
        return leaked & ~self.holdout

    def _groups(self, origin: Any, alone: Any, alike: Any) -> Any:
        import numpy as np

        questions = repetition.first_with(self.question)
        tied = np.column_stack((alone[alike[:, 0]], alone[alike[:, 1]]))
        rows = np.arange(len(origin))
        copies = np.column_stack((origin, rows))[origin != rows]
        asked = np.column_stack((questions, rows))[questions != rows]
        return near_duplicates.groups(np.concatenate((tied, copies, asked)), len(origin))

    def _report_duplicates(self, wanted: Literal["Drop", "Keep"], name: str, rows: Any, what: str) -> None:
        count = int(rows.sum())
        if not count:
            return
        places = self.places(rows)
        if wanted == "Drop":
            self.drop(rows)
        fate, fix = {
            "Drop": ("left out", "if they are intended, set dataset.checks.duplicates to Keep"),
            "Keep": (
                "kept",
                "they weigh more than other rows; set dataset.checks.duplicates to Drop to leave them out",
            ),
        }[wanted]
        message = f"{what} an earlier row and {fate}: {number_of_rows(count)}, first {listed(places)}; {fix}"
        self.checks.append(
            CheckReport(
                name=name, severity="Drop" if wanted == "Drop" else "Warn", count=count, places=places, message=message
            )
        )

    def _check_answers(self) -> None:
        import numpy as np

        table = self.collected.table
        used = self.kept
        closed = np.flatnonzero(used & ~table.flagged(Flag.OPEN))
        answers, prompts = table.column("answer")[closed], table.column("prompt")[closed]
        lengths = table.column("answer_characters")
        contradicting = np.zeros(len(table), bool)
        contradicting[closed] = repetition.contradicting(prompts, answers)
        overused = np.zeros(len(table), bool)
        overused[closed] = repetition.overused(answers, prompts, lengths[closed])
        unfinished = used & table.flagged(Flag.UNFINISHED)
        long_answers = int((used & table.flagged(Flag.LONG_ANSWER)).sum())
        if not endings.suspicious(lengths[unfinished].tolist(), long_answers):
            unfinished = np.zeros(len(table), bool)
        kinds = [name for flag, name in _PERSONAL_NAMES.items() if (used & table.flagged(flag)).any()]
        self._warn(
            "PersonalData",
            used & table.flagged(PERSONAL),
            f"there seems to be personal data ({', '.join(kinds)})",
            "the model may repeat it to anyone; remove it",
        )
        self._warn(
            "Refusals",
            used & table.flagged(Flag.REFUSAL),
            "the answer begins with a refusal",
            "the model learns to refuse; remove them unless that is intended",
        )
        self._warn(
            "CutOffAnswers",
            unfinished,
            "a long answer stops in the middle of a sentence",
            "the model learns to stop there; complete them",
        )
        self._warn(
            "DifferentAnswers",
            contradicting,
            "the prompt is that of an earlier row and the answer is different",
            "the model learns a mixture; keep the best answer",
        )
        self._warn(
            "AnswerRepeatsPrompt",
            used & table.flagged(Flag.ECHO),
            "the answer only repeats the prompt",
            "correct them",
        )
        self._warn(
            "RepeatedAnswer",
            overused,
            "the answer is the same as for very many other prompts",
            "the model learns to always give it; vary it or remove some rows",
        )

    def _warn(self, name: str, rows: Any, what: str, fix: str) -> None:
        count = int(rows.sum())
        if count:
            places = self.places(rows)
            message = f"in {number_of_rows(count)} {what}, first {listed(places)}; {fix}"
            self.checks.append(CheckReport(name=name, severity="Warn", count=count, places=places, message=message))
