"""What one pass of the reconcile loop saw of one FineTuneJob."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from pydantic import ValidationError

from finetune_api.job import ObjectMeta
from finetune_api.spec import FineTuneJobSpec
from finetune_api.status import FineTuneJobStatus
from finetune_operator import names

Object = dict[str, Any]
"""A Kubernetes object in its JSON form, as the API server sent it."""


@dataclass(frozen=True)
class Observation:
    """One FineTuneJob and everything that carries its name.

    Create it with `of`. `decide` relies on this: the FineTuneJob was read first and its children were listed after it,
    all from the API server itself (no resourceVersion, no cache); passes of one namespace/name never overlap; the
    status is written with the resourceVersion of this FineTuneJob as its precondition. An attempt's number increases
    only by that write, and a child's name is made from it, so a pass that acts on an old status finds the name taken.

    A pass may continue after it has written a status, with the same children. Nobody else wrote a status in between, so
    the status says nothing about children that is newer than what was listed.
    """

    metadata: ObjectMeta
    # None if this version does not understand the spec; `spec_error` then says why, with the name of the field.
    spec: FineTuneJobSpec | None
    spec_error: str | None
    # Without progress, which has another field manager.
    status: FineTuneJobStatus
    # The attempt of train that reported progress last, and the step it had reached.
    reported_step: tuple[int, int] | None = None
    # Children of this FineTuneJob, including finished ones.
    jobs: tuple[Object, ...] = ()
    pods: tuple[Object, ...] = ()
    config_maps: tuple[Object, ...] = ()
    # Children of FineTuneJobs that had this namespace and name before.
    foreign_jobs: tuple[Object, ...] = ()
    foreign_pods: tuple[Object, ...] = ()
    foreign_config_maps: tuple[Object, ...] = ()
    # Events of what `diagnose.needs_events` returns.
    events: tuple[Object, ...] = ()
    # Kueue's Workloads of the Job that `kueue_wait.held` returns. None: not listed, or the cluster has no Kueue.
    workloads: tuple[Object, ...] | None = None
    # The API server's message, if it refused to create a child in this pass.
    refusal: str | None = None

    @classmethod
    def of(
        cls,
        resource: Object,
        *,
        jobs: Sequence[Object],
        pods: Sequence[Object],
        config_maps: Sequence[Object],
    ) -> Self:
        """Sort the children, which were listed by the label `finetune.dev/job=<name>` in the job's namespace.

        Raises:
            ValidationError: this version does not understand the status, which a later one wrote. Leave the job alone.
        """
        metadata = ObjectMeta.model_validate(resource["metadata"])
        status = {k: v for k, v in (resource.get("status") or {}).items() if k != "progress"}
        spec: FineTuneJobSpec | None = None
        error: str | None = None
        try:
            spec = FineTuneJobSpec.model_validate(resource.get("spec") or {})
        except ValidationError as failure:
            error = _sentence(failure)
        return cls(
            metadata=metadata,
            spec=spec,
            spec_error=error,
            status=FineTuneJobStatus.model_validate(status),
            reported_step=_reported_step(resource),
            jobs=tuple(j for j in jobs if _is_own(j, metadata.uid)),
            pods=tuple(p for p in pods if _is_own(p, metadata.uid)),
            config_maps=tuple(c for c in config_maps if _is_own(c, metadata.uid)),
            foreign_jobs=tuple(j for j in jobs if not _is_own(j, metadata.uid)),
            foreign_pods=tuple(p for p in pods if not _is_own(p, metadata.uid)),
            foreign_config_maps=tuple(c for c in config_maps if not _is_own(c, metadata.uid)),
        )

    def with_children(self, answers: Sequence[Object]) -> Self:
        """Return it with the Jobs and ConfigMaps that this pass created or replaced, as the API server sent them."""
        if not answers:
            return self
        jobs = [a for a in answers if a["kind"] == "Job"]
        maps = [a for a in answers if a["kind"] == "ConfigMap"]
        new = {a["metadata"]["name"] for a in maps}
        return replace(
            self,
            jobs=(*self.jobs, *jobs),
            config_maps=(*(c for c in self.config_maps if c["metadata"]["name"] not in new), *maps),
            # A Job that was just created has no Workload yet.
            workloads=() if jobs else self.workloads,
        )

    def with_status(self, resource: Object) -> Self:
        """Return it with the FineTuneJob that the API server returned when the status was written.

        Raises:
            ValidationError: see `of`.
        """
        updated = self.of(
            resource,
            jobs=(*self.jobs, *self.foreign_jobs),
            pods=(*self.pods, *self.foreign_pods),
            config_maps=(*self.config_maps, *self.foreign_config_maps),
        )
        return replace(updated, events=self.events, workloads=self.workloads, refusal=self.refusal)


def _reported_step(resource: Object) -> tuple[int, int] | None:
    progress = (resource.get("status") or {}).get("progress") or {}
    if progress.get("stage") != "train" or "step" not in progress:
        return None
    return progress["attempt"], progress["step"]


def _is_own(child: Object, uid: str) -> bool:
    return bool((child["metadata"].get("labels") or {}).get(names.JOB_UID_LABEL) == uid)


def _sentence(failure: ValidationError) -> str:
    """Return what is wrong with the first invalid field, never its value: a prompt or a URL may be private."""
    first = failure.errors(include_url=False, include_input=False, include_context=False)[0]
    field = ".".join(["spec", *(str(part) for part in first["loc"])])
    others = failure.error_count() - 1
    more = f" ({others} more)" if others else ""
    return f"{field}: {first['msg']}{more}"
