"""An API server in memory, with the few rules that the code under test relies on."""

import itertools
from collections.abc import AsyncIterator, Callable
from copy import copy, deepcopy
from typing import Any, Self

from finetune_operator.cluster.client import (
    CONFIG_MAPS,
    FINETUNE_JOBS,
    JOBS,
    PODS,
    KubeClient,
    Object,
    Propagation,
    Resource,
)
from finetune_operator.cluster.errors import AlreadyExists, ApiError, Conflict, NotFound


class Clock:
    """A clock that only the test moves, in seconds."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class FakeKube(KubeClient):
    """Answers from a dictionary. `calls` has (verb, plural, name); `refuse` maps a verb to what it raises."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str | None, str], Object] = {}
        self.calls: list[tuple[str, str, str]] = []
        self.refuse: dict[tuple[str, str], Exception] = {}
        self.reviews: dict[str, Object] = {}
        self.propagated: list[Propagation] = []
        self._versions = itertools.count(1)
        self._permit: Callable[[], None] | None = None

    def permitted(self, permit: Callable[[], None]) -> Self:
        permitted = copy(self)
        permitted._permit = permit
        return permitted

    def put(self, resource: Resource, body: Object) -> Object:
        """Store an object as another client would."""
        stored = deepcopy(body)
        stored["metadata"].setdefault("uid", f"uid-of-{stored['metadata']['name']}")
        stored["metadata"]["resourceVersion"] = str(next(self._versions))
        self.objects[resource.plural, stored["metadata"].get("namespace"), stored["metadata"]["name"]] = stored
        return stored

    def _call(self, verb: str, resource: Resource, name: str) -> None:
        if self._permit is not None and verb not in ("get", "list"):
            self._permit()
        self.calls.append((verb, resource.plural, name))
        if (verb, resource.plural) in self.refuse:
            raise self.refuse[verb, resource.plural]

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Object:
        self._call("get", resource, name)
        try:
            return deepcopy(self.objects[resource.plural, namespace, name])
        except KeyError:
            raise NotFound(404, "NotFound", name) from None

    async def list(
        self, resource: Resource, namespace: str | None, *, labels: str = "", fields: str = ""
    ) -> list[Object]:
        self._call("list", resource, labels or fields)
        wanted = dict(pair.split("=") for pair in labels.split(",") if pair)
        return [
            deepcopy(body)
            for (plural, where, _), body in self.objects.items()
            if plural == resource.plural
            and namespace in (None, where)
            and wanted.items() <= (body["metadata"].get("labels") or {}).items()
        ]

    async def each(
        self, resource: Resource, namespace: str | None, *, labels: str = "", fields: str = ""
    ) -> AsyncIterator[Object]:
        for found in await self.list(resource, namespace, labels=labels, fields=fields):
            yield found

    async def create(self, resource: Resource, namespace: str, body: Object) -> Object:
        self._call("create", resource, body["metadata"]["name"])
        if (resource.plural, namespace, body["metadata"]["name"]) in self.objects:
            raise AlreadyExists(409, "AlreadyExists", body["metadata"]["name"])
        return self.put(resource, {**body, "metadata": {**body["metadata"], "namespace": namespace}})

    async def replace(self, resource: Resource, namespace: str, name: str, body: Object) -> Object:
        self._call("replace", resource, name)
        stored = self.objects.get((resource.plural, namespace, name))
        if stored is None:
            raise NotFound(404, "NotFound", name)
        if stored["metadata"]["resourceVersion"] != body["metadata"]["resourceVersion"]:
            raise Conflict(409, "Conflict", name)
        return self.put(resource, body)

    async def delete(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        *,
        uid: str,
        resource_version: str,
        propagation: Propagation,
    ) -> None:
        self.propagated.append(propagation)
        self._call("delete", resource, name)
        stored = self.objects.get((resource.plural, namespace, name))
        if stored is None:
            raise NotFound(404, "NotFound", name)
        if (stored["metadata"]["uid"], stored["metadata"]["resourceVersion"]) != (uid, resource_version):
            raise Conflict(409, "Conflict", name)
        del self.objects[resource.plural, namespace, name]

    async def apply_status(
        self, resource: Resource, namespace: str, name: str, body: Object, *, manager: str
    ) -> Object:
        self._call("apply_status", resource, manager)
        stored = self.objects.get((resource.plural, namespace, name))
        if stored is None:
            raise NotFound(404, "NotFound", name)
        for member in ("uid", "resourceVersion"):
            if stored["metadata"][member] != body["metadata"][member]:
                raise Conflict(409, "Conflict", name)
        return self.put(resource, {**stored, "status": {**stored.get("status", {}), **body["status"]}})

    async def review_token(self, token: str, audience: str) -> Object:
        self.calls.append(("review", "tokenreviews", audience))
        return self.reviews.get(token, {"authenticated": False})


def forbidden(message: str = "no") -> ApiError:
    return ApiError(403, "Forbidden", message)


LABELS = {
    "app.kubernetes.io/managed-by": "finetune-operator",
    "finetune.dev/job": "coach",
    "finetune.dev/job-uid": "uid-of-coach",
    "finetune.dev/stage": "train",
    "finetune.dev/attempt": "1",
}


def owner(kind: str, name: str) -> dict[str, Any]:
    return {"kind": kind, "name": name, "uid": f"uid-of-{name}", "controller": True}


def running_train(kube: FakeKube) -> None:
    """Store a FineTuneJob `coach` whose second train attempt runs, with the token `good` for its pod."""
    kube.put(FINETUNE_JOBS, {"metadata": {"namespace": "team", "name": "coach"}, "spec": {}})
    job = {"namespace": "team", "name": "coach-train-1", "labels": LABELS}
    kube.put(JOBS, {"metadata": {**job, "ownerReferences": [owner("FineTuneJob", "coach")]}})
    created = {"creationTimestamp": "2026-01-01T00:00:00Z"}
    pod = {"namespace": "team", "name": "coach-train-1-x", "labels": LABELS, **created}
    kube.put(
        PODS,
        {"metadata": {**pod, "ownerReferences": [owner("Job", "coach-train-1")]}, "status": {"phase": "Running"}},
    )
    kube.reviews["good"] = review("coach-train-1-x")


def review(pod: str, namespace: str = "team") -> Object:
    return {
        "authenticated": True,
        "audiences": ["finetune.dev/progress"],
        "user": {
            "username": f"system:serviceaccount:{namespace}:default",
            "extra": {
                "authentication.kubernetes.io/pod-name": [pod],
                "authentication.kubernetes.io/pod-uid": [f"uid-of-{pod}"],
            },
        },
    }


__all__ = ["CONFIG_MAPS", "LABELS", "Clock", "FakeKube", "forbidden", "owner", "review", "running_train"]
