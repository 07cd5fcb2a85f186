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

    Make it with `of`. What `decide` relies on: the FineTuneJob was read first and the children were listed after it,
    all from the API server itself (no resourceVersion, no cache); passes of one namespace/name never overlap; the
    status is written with the resource version of this FineTuneJob as its precondition. An attempt's number moves on
    only through that write, and a child's name is made from it, so that a pass which acts on an old status meets a
    name that is taken.

    A pass goes on from what it has written, on the same children. That is as good: nobody wrote a status in between, so
    that all it says of children is older than they are, or was seen on them.
    """

    metadata: ObjectMeta
    # None if the spec is not one that this version understands; `spec_error` then says why, naming the field.
    spec: FineTuneJobSpec | None
    spec_error: str | None
    # Without progress, which has a writer of its own.
    status: FineTuneJobStatus
    # Children of this very FineTuneJob, finished ones too.
    jobs: tuple[Object, ...] = ()
    pods: tuple[Object, ...] = ()
    config_maps: tuple[Object, ...] = ()
    # Children of FineTuneJobs that had this namespace and name before.
    foreign_jobs: tuple[Object, ...] = ()
    foreign_pods: tuple[Object, ...] = ()
    # Events of what `diagnose.needs_events` names.
    events: tuple[Object, ...] = ()
    # Kueue's Workloads of the Job that `kueue_wait.held` names. None: not asked, or the cluster has no such thing.
    workloads: tuple[Object, ...] | None = None
    # The API server's message, if it refused in this pass to create a child.
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
            ValidationError: the status was written by a version that this one does not understand. The job must be
                left alone.
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
            jobs=tuple(j for j in jobs if _is_own(j, metadata.uid)),
            pods=tuple(p for p in pods if _is_own(p, metadata.uid)),
            config_maps=tuple(c for c in config_maps if _is_own(c, metadata.uid)),
            foreign_jobs=tuple(j for j in jobs if not _is_own(j, metadata.uid)),
            foreign_pods=tuple(p for p in pods if not _is_own(p, metadata.uid)),
        )

    def with_children(self, answers: Sequence[Object]) -> Self:
        """Return it with the Jobs and ConfigMaps that were created or replaced since, as the API server answered."""
        if not answers:
            return self
        jobs = [a for a in answers if a["kind"] == "Job"]
        maps = [a for a in answers if a["kind"] == "ConfigMap"]
        new = {a["metadata"]["name"] for a in maps}
        return replace(
            self,
            jobs=(*self.jobs, *jobs),
            config_maps=(*(c for c in self.config_maps if c["metadata"]["name"] not in new), *maps),
            # No queue has taken up what was created just now.
            workloads=() if jobs else self.workloads,
        )

    def with_status(self, resource: Object) -> Self:
        """Return it with the FineTuneJob as the API server answered to the status that was written.

        Raises:
            ValidationError: see `of`.
        """
        anew = self.of(
            resource,
            jobs=(*self.jobs, *self.foreign_jobs),
            pods=(*self.pods, *self.foreign_pods),
            config_maps=self.config_maps,
        )
        return replace(anew, events=self.events, workloads=self.workloads, refusal=self.refusal)


def _is_own(child: Object, uid: str) -> bool:
    return bool((child["metadata"].get("labels") or {}).get(names.JOB_UID_LABEL) == uid)


def _sentence(failure: ValidationError) -> str:
    """Name the first field that is wrong. Never its value: a prompt or a URL may be private."""
    first = failure.errors(include_url=False, include_input=False, include_context=False)[0]
    field = ".".join(["spec", *(str(part) for part in first["loc"])])
    others = failure.error_count() - 1
    more = f" ({others} more)" if others else ""
    return f"{field}: {first['msg']}{more}"
