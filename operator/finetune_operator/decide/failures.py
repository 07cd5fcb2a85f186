"""What a failed attempt means for its stage: one policy per function, the first that applies decides."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from finetune_api import exit_codes
from finetune_api.exit_codes import ExitCode
from finetune_api.status import Failure, StageStatus
from finetune_operator.decide.attempts import Ended

OUT_OF_MEMORY = "OOMKilled"
EVICTED = "Evicted"
RESULT_LOST = "ResultLost"
# What an edit of spec.compute can mend.
_LIMITS = (OUT_OF_MEMORY, EVICTED)
# How Python's argparse ends a program.
_UNKNOWN_OPTION = 2
_BACKOFF_SECONDS = 10
_MAXIMUM_BACKOFF_SECONDS = 300


@dataclass(frozen=True)
class Verdict:
    """Try again or not."""

    failure: Failure
    permanent: bool = False
    # Whether it uses up one of spec.retries.maximum.
    counted: bool = True
    # Whether the next attempt only reads the result that is stored.
    report_only: bool = False


Policy = Callable[[Ended, StageStatus], Verdict | None]


def lost_result(attempt: Ended, stage: StageStatus) -> Verdict | None:
    """A stage that succeeded is never run again because its result cannot be read: an attempt reads it in the bucket.

    That costs nothing, unless such an attempt loses the result too: it might for ever.
    """
    if not attempt.succeeded:
        return None
    message = f"The result of {stage.name} was lost with its pod; it is read again from the bucket."
    if attempt.has_pod:
        message = f"The {stage.name} pod left no readable result; it is read again from the bucket."
    failure = Failure(stage=stage.name, reason=RESULT_LOST, message=message)
    return Verdict(failure, counted=bool(stage.report_only), report_only=True)


def report_failed(attempt: Ended, stage: StageStatus) -> Verdict | None:
    """What an attempt costs that only reads a result: the stage runs again if there is none, and for no other cause.

    Memory, disk and access have other causes here than the job's own settings, with which the stage got to its end.
    """
    if not stage.report_only:
        return None
    if attempt.exit_code == ExitCode.NO_RESULT:
        return Verdict(_reported(attempt))
    if attempt.exit_code == _UNKNOWN_OPTION:
        # A job that was accepted with the trainer image of an earlier version; there a stage that is repeated ends at
        # once with the result that is stored.
        message = f"The trainer image does not know --report; {stage.name} is asked for its result instead."
        return Verdict(Failure(stage=stage.name, reason=RESULT_LOST, message=message, exit_code=attempt.exit_code))
    permanent = attempt.exit_code in exit_codes.PERMANENT - {ExitCode.ACCESS_DENIED}
    return Verdict(_reported(attempt), permanent=permanent, report_only=True)


def disrupted(attempt: Ended, stage: StageStatus) -> Verdict | None:
    """Eviction, preemption and node shutdown are nobody's fault: an uncounted attempt."""
    if not attempt.disrupted:
        return None
    message = f"The {stage.name} pod was evicted, preempted or lost its node; it starts again where it was."
    failure = Failure(stage=stage.name, reason="Disrupted", message=message)
    return Verdict(failure, counted=False, report_only=bool(stage.report_only))


def out_of_memory(attempt: Ended, stage: StageStatus) -> Verdict | None:
    """Once may be bad luck; twice in a row is a limit that is too low."""
    if not attempt.out_of_memory:
        return None
    message = (
        f"The {stage.name} container needed more memory than it may use; "
        f"raise spec.compute.resources.{stage.name}.limits.memory."
    )
    failure = Failure(stage=stage.name, reason=OUT_OF_MEMORY, message=message, exit_code=attempt.exit_code)
    return Verdict(failure, permanent=_was(stage, OUT_OF_MEMORY))


def over_disk_limit(attempt: Ended, stage: StageStatus) -> Verdict | None:
    """The kubelet evicts a pod that writes more than its limit; treated as a memory limit is."""
    if attempt.eviction is None:
        return None
    message = (
        f"The {stage.name} pod was evicted: {_sentence(attempt.eviction)} Raise spec.compute.scratch.size "
        f"or spec.compute.resources.{stage.name}.limits.ephemeral-storage."
    )
    return Verdict(Failure(stage=stage.name, reason=EVICTED, message=message), permanent=_was(stage, EVICTED))


def access_denied_later(attempt: Ended, stage: StageStatus) -> Verdict | None:
    """Access worked in prepare, so that a refusal later may pass: credentials are being rotated."""
    if attempt.exit_code != ExitCode.ACCESS_DENIED or stage.name == "prepare":
        return None
    return Verdict(_reported(attempt))


def permanent(attempt: Ended, _: StageStatus) -> Verdict | None:
    """Only the user can help."""
    if attempt.exit_code not in exit_codes.PERMANENT:
        return None
    return Verdict(_reported(attempt), permanent=True)


def checkpoint_moved_on(attempt: Ended, stage: StageStatus) -> Verdict | None:
    """An interruption costs no retry as long as each attempt gets further."""
    if attempt.exit_code not in exit_codes.UNCOUNTED_WITH_PROGRESS:
        return None
    step = attempt.checkpoint_step
    moved = step is not None and step > (stage.checkpoint_step or 0)
    return Verdict(_reported(attempt), counted=not moved)


_POLICIES: tuple[Policy, ...] = (
    lost_result,
    disrupted,
    report_failed,
    out_of_memory,
    over_disk_limit,
    access_denied_later,
    permanent,
    checkpoint_moved_on,
)


def judge(attempt: Ended, stage: StageStatus, maximum: int, *, edited: bool = False) -> Verdict:
    """Return what follows from an attempt that left no good result.

    Args:
        attempt: the attempt that ended.
        stage: the stage as it stood before.
        maximum: counted failures after which the stage still starts again, spec.retries.maximum.
        edited: whether spec.compute has changed since the attempt that failed before this one.
    """
    verdict = next((v for policy in _POLICIES if (v := policy(attempt, stage))), None)
    # Everything else may pass.
    verdict = verdict or Verdict(_reported(attempt))
    if edited and verdict.failure.reason in _LIMITS:
        # One that was just raised may be enough, and the attempt that is over may not have had it yet.
        verdict = replace(verdict, permanent=False)
    if verdict.permanent or not verdict.counted or stage.counted_failures < maximum:
        return verdict
    tried = stage.counted_failures + 1
    if tried == 1:
        return replace(verdict, permanent=True)
    message = _cut(f"{_sentence(verdict.failure.message)} It failed {tried} times.")
    return replace(verdict, failure=verdict.failure.model_copy(update={"message": message}), permanent=True)


def job_deleted(stage: StageStatus) -> Verdict:
    """Somebody deleted the Job of a running stage: an uncounted attempt."""
    message = f"The Job of {stage.name} was deleted; a new one continues."
    failure = Failure(stage=stage.name, reason="JobDeleted", message=message)
    return Verdict(failure, counted=False, report_only=bool(stage.report_only))


def backoff_seconds(counted_failures: int) -> int:
    """Return the pause before the next attempt: 10 s, doubled with each further counted failure, 300 s at most."""
    doublings = min(max(counted_failures - 1, 0), 10)
    return min(_BACKOFF_SECONDS << doublings, _MAXIMUM_BACKOFF_SECONDS)


def _was(stage: StageStatus, reason: str) -> bool:
    return stage.last_failure is not None and stage.last_failure.reason == reason


def _reported(attempt: Ended) -> Failure:
    """What the trainer said, word for word; if it said nothing, what Kubernetes knows."""
    code, result = attempt.exit_code, attempt.result
    if result and result.exit_code == code and result.message:
        reason = result.reason or exit_codes.reason(result.exit_code)
        return Failure(stage=attempt.stage, reason=reason, message=result.message, exit_code=code)
    if code is None:
        message = _cut(f"The {attempt.stage} pod was lost: {_sentence(attempt.message or 'no reason is known')}")
        return Failure(stage=attempt.stage, reason="PodLost", message=message)
    message = f"The {attempt.stage} container ended with exit code {code} and gave no reason; its log may."
    return Failure(stage=attempt.stage, reason=exit_codes.reason(code), message=message, exit_code=code)


def _sentence(text: str) -> str:
    text = text.strip()
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _cut(text: str) -> str:
    return text[:4096]
