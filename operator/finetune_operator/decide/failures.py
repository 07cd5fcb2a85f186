"""What a failed attempt means for its stage: one policy per function, the first that applies decides."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from finetune_api import exit_codes
from finetune_api.base import MAXIMUM_MESSAGE
from finetune_api.exit_codes import ExitCode
from finetune_api.status import Failure, StageStatus
from finetune_operator.decide.attempts import Ended

OUT_OF_MEMORY = "OOMKilled"
EVICTED = "Evicted"
RESULT_LOST = "ResultLost"
# Reasons that an edit of spec.compute may remedy.
_LIMITS = (OUT_OF_MEMORY, EVICTED)
# The exit code of Python's argparse.
_UNKNOWN_OPTION = 2
_BACKOFF_SECONDS = 10
_MAXIMUM_BACKOFF_SECONDS = 300


@dataclass(frozen=True)
class Verdict:
    """Whether the stage is tried again, and at what cost."""

    failure: Failure
    permanent: bool = False
    # Whether it uses up one of spec.retries.maximum.
    counted: bool = True
    # Whether the next attempt only reads the result that is stored.
    report_only: bool = False


Policy = Callable[[Ended, StageStatus], Verdict | None]


def lost_result(attempt: Ended, stage: StageStatus) -> Verdict | None:
    """A stage that succeeded is not run again because its result was lost: an attempt reads the result in the bucket.

    That is not counted, unless such an attempt loses the result too: it might do so forever.
    """
    if not attempt.succeeded:
        return None
    message = f"The result of {stage.name} was lost with its pod; the next attempt reads it from the bucket."
    if attempt.has_pod:
        message = f"The {stage.name} pod left no readable result; the next attempt reads it from the bucket."
    failure = Failure(stage=stage.name, reason=RESULT_LOST, message=message)
    return Verdict(failure, counted=bool(stage.report_only), report_only=True)


def report_failed(attempt: Ended, stage: StageStatus) -> Verdict | None:
    """An attempt that only reads a result failed: the stage runs again if there is no result, and for no other cause.

    The stage succeeded with the job's settings, so here memory, disk and access fail for other causes.
    """
    if not stage.report_only:
        return None
    if attempt.exit_code == ExitCode.NO_RESULT:
        return Verdict(_reported(attempt))
    if attempt.exit_code == _UNKNOWN_OPTION:
        # The job was accepted with the trainer image of an earlier version. A stage that it repeats ends at once with
        # the stored result.
        message = f"The trainer image does not know --report; the next attempt runs {stage.name} instead."
        return Verdict(Failure(stage=stage.name, reason=RESULT_LOST, message=message, exit_code=attempt.exit_code))
    permanent = attempt.exit_code in exit_codes.PERMANENT - {ExitCode.ACCESS_DENIED}
    return Verdict(_reported(attempt), permanent=permanent, report_only=True)


def disrupted(attempt: Ended, stage: StageStatus) -> Verdict | None:
    """Eviction, preemption and node shutdown are not the job's fault, so the attempt is not counted."""
    if not attempt.disrupted:
        return None
    message = f"The {stage.name} pod was evicted or preempted, or lost its node; the next attempt resumes."
    failure = Failure(stage=stage.name, reason="Disrupted", message=message)
    return Verdict(failure, counted=False, report_only=bool(stage.report_only))


def out_of_memory(attempt: Ended, stage: StageStatus) -> Verdict | None:
    """Running out of memory once may be chance; twice in a row means that the limit is too low."""
    if not attempt.out_of_memory:
        return None
    message = (
        f"The {stage.name} container needed more memory than its limit. "
        f"Raise spec.compute.resources.{stage.name}.limits.memory."
    )
    failure = Failure(stage=stage.name, reason=OUT_OF_MEMORY, message=message, exit_code=attempt.exit_code)
    return Verdict(failure, permanent=_was(stage, OUT_OF_MEMORY))


def over_disk_limit(attempt: Ended, stage: StageStatus) -> Verdict | None:
    """The kubelet evicts a pod that writes more than its limit; this is treated like a memory limit."""
    if attempt.eviction is None:
        return None
    message = (
        f"The {stage.name} pod was evicted: {_sentence(attempt.eviction)} Raise spec.compute.scratch.size "
        f"or spec.compute.resources.{stage.name}.limits.ephemeral-storage."
    )
    return Verdict(Failure(stage=stage.name, reason=EVICTED, message=message), permanent=_was(stage, EVICTED))


def access_denied_later(attempt: Ended, stage: StageStatus) -> Verdict | None:
    """Access worked in prepare, so a later refusal may be temporary: credentials are being rotated."""
    if attempt.exit_code != ExitCode.ACCESS_DENIED or stage.name == "prepare":
        return None
    return Verdict(_reported(attempt))


def permanent(attempt: Ended, _: StageStatus) -> Verdict | None:
    """Only the user can remove the cause."""
    if attempt.exit_code not in exit_codes.PERMANENT:
        return None
    return Verdict(_reported(attempt), permanent=True)


def checkpoint_moved_on(attempt: Ended, stage: StageStatus) -> Verdict | None:
    """An interruption is not counted as long as each attempt saves a later checkpoint."""
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
    """Return what follows from an attempt that did not succeed or left no result.

    Args:
        attempt: the attempt that ended.
        stage: the stage as it stood before.
        maximum: counted failures after which the stage still starts again, spec.retries.maximum.
        edited: whether spec.compute has changed since the attempt that failed before this one.
    """
    verdict = next((v for policy in _POLICIES if (v := policy(attempt, stage))), None)
    # Any other cause may be temporary.
    verdict = verdict or Verdict(_reported(attempt))
    if edited and verdict.failure.reason in _LIMITS:
        # A limit that was just raised may be enough, and this attempt may not have had it yet.
        verdict = replace(verdict, permanent=False)
    if verdict.permanent or not verdict.counted or stage.counted_failures < maximum:
        return verdict
    tried = stage.counted_failures + 1
    if tried == 1:
        return replace(verdict, permanent=True)
    message = _cut(f"{_sentence(verdict.failure.message)} It failed {tried} times.")
    return replace(verdict, failure=verdict.failure.model_copy(update={"message": message}), permanent=True)


def job_deleted(stage: StageStatus) -> Verdict:
    """Return what follows when somebody else deleted the Job of a running stage: the attempt is not counted."""
    message = f"The Job of {stage.name} was deleted; the next attempt resumes."
    failure = Failure(stage=stage.name, reason="JobDeleted", message=message)
    return Verdict(failure, counted=False, report_only=bool(stage.report_only))


def backoff_seconds(counted_failures: int) -> int:
    """Return the pause before the next attempt: 10 s, doubled with each further counted failure, 300 s at most."""
    doublings = min(max(counted_failures - 1, 0), 10)
    return min(_BACKOFF_SECONDS << doublings, _MAXIMUM_BACKOFF_SECONDS)


def _was(stage: StageStatus, reason: str) -> bool:
    return stage.last_failure is not None and stage.last_failure.reason == reason


def _reported(attempt: Ended) -> Failure:
    """Return the failure as the trainer reported it; if it reported none, what Kubernetes knows."""
    code, result = attempt.exit_code, attempt.result
    if result and result.exit_code == code and result.message:
        reason = result.reason or exit_codes.reason(result.exit_code)
        return Failure(stage=attempt.stage, reason=reason, message=result.message, exit_code=code)
    if code is None:
        message = _cut(f"The {attempt.stage} pod was lost: {_sentence(attempt.message or 'the reason is not known')}")
        return Failure(stage=attempt.stage, reason="PodLost", message=message)
    message = f"The {attempt.stage} container exited with code {code} and reported no reason. Check its log."
    return Failure(stage=attempt.stage, reason=exit_codes.reason(code), message=message, exit_code=code)


def _sentence(text: str) -> str:
    text = text.strip()
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _cut(text: str) -> str:
    return text[:MAXIMUM_MESSAGE]
