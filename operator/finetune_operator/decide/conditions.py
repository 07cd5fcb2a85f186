"""The conditions that tools read: kubectl wait, Argo CD, and Flux by way of kstatus.

    state       Ready   Reconciling  Stalled  Succeeded  Failed  Finished  Suspended
    unfinished  False   True         -        Unknown    False   False     False
    suspended   False   -            -        Unknown    False   False     True
    blocked     False   -            True     Unknown    False   False     False
    succeeded   True    -            -        True       False   True      False
    failed      False   -            True     False      True    True      False

kstatus reports InProgress while Reconciling is True, and Failed while Stalled is True, whatever the other conditions
are; so these two are absent unless True. `Accepted` lets a pipeline wait for the acceptance of the job instead of hours
of training. `Evaluated` is present once there is a verdict on the result, and `SpecApplied`, False, while the job runs
with another spec than the present one, which came too late; no state depends on these two.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from finetune_api.status import Condition, ConditionType
from finetune_operator.clock import format_time
from finetune_operator.decide.evaluation_gate import Evaluated
from finetune_operator.decide.observation import Object

State = Literal["unfinished", "suspended", "blocked", "succeeded", "failed"]
_Value = Literal["True", "False", "Unknown"]

_TABLE: dict[State, dict[ConditionType, _Value]] = {
    "unfinished": {
        "Finished": "False",
        "Succeeded": "Unknown",
        "Failed": "False",
        "Ready": "False",
        "Reconciling": "True",
        "Suspended": "False",
    },
    "suspended": {
        "Finished": "False",
        "Succeeded": "Unknown",
        "Failed": "False",
        "Ready": "False",
        "Suspended": "True",
    },
    "blocked": {
        "Finished": "False",
        "Succeeded": "Unknown",
        "Failed": "False",
        "Ready": "False",
        "Stalled": "True",
        "Suspended": "False",
    },
    "succeeded": {"Finished": "True", "Succeeded": "True", "Failed": "False", "Ready": "True", "Suspended": "False"},
    "failed": {
        "Finished": "True",
        "Succeeded": "False",
        "Failed": "True",
        "Ready": "False",
        "Stalled": "True",
        "Suspended": "False",
    },
}
EDITED_TOO_LATE = "EditedTooLate"
ACCEPTED_MESSAGE = "The job is accepted; its plan is fixed once the first container starts."


def build(
    previous: Sequence[Condition],
    state: State,
    reason: str,
    message: str,
    *,
    accepted: bool,
    evaluated: Evaluated | None = None,
    refused_edit: str | None = None,
    now: datetime,
    generation: int,
) -> list[Condition]:
    """Return all conditions of a job; `lastTransitionTime` changes only with the status.

    `reason` and `message` say why the job is in its state. Accepted has them too if the job is not accepted.
    """
    rows: list[tuple[ConditionType, _Value, str, str]] = [
        ("Accepted", "True", "Accepted", ACCEPTED_MESSAGE) if accepted else ("Accepted", "False", reason, message)
    ]
    rows += [(kind, value, reason, message) for kind, value in _TABLE[state].items()]
    if evaluated:
        rows.append(("Evaluated", "True" if evaluated.better else "False", evaluated.reason, evaluated.message))
    if refused_edit:
        rows.append(("SpecApplied", "False", EDITED_TOO_LATE, refused_edit))
    before = {c.type: c for c in previous}
    return [
        Condition(
            type=kind,
            status=value,
            reason=why,
            message=text,
            last_transition_time=before[kind].last_transition_time
            if kind in before and before[kind].status == value
            else format_time(now),
            observed_generation=generation,
        )
        for kind, value, why, text in rows
    ]


def reason(conditions: Sequence[Condition]) -> str | None:
    """Return the reason of Ready, which says why a job is in its state; None before the first status."""
    return next((c.reason for c in conditions if c.type == "Ready"), None)


def is_true(conditions: Sequence[Condition], kind: ConditionType) -> bool:
    """Whether a condition is present and True."""
    return any(c.type == kind and c.status == "True" for c in conditions)


def is_finished(finetune_job: Object) -> bool:
    """Whether a stored FineTuneJob has succeeded or failed."""
    conditions = (finetune_job.get("status") or {}).get("conditions") or []
    return any(c["type"] == "Finished" and c["status"] == "True" for c in conditions)
