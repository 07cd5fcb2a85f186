"""Authenticates progress pushes: a token is valid only while the pod of its attempt is live."""

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from finetune_api import KIND
from finetune_api.progress import TOKEN_AUDIENCE
from finetune_operator import names
from finetune_operator.cluster.apply import controller_uid
from finetune_operator.cluster.client import FINETUNE_JOBS, JOBS, PODS, KubeClient, Object
from finetune_operator.cluster.errors import NotFound

CACHE_SECONDS = 60.0
_CACHE_ENTRIES = 4096
# How many tokens the API server checks at the same time; the others wait.
_CONCURRENT_REVIEWS = 8
_POD_NAME = "authentication.kubernetes.io/pod-name"
_POD_UID = "authentication.kubernetes.io/pod-uid"
_ATTEMPT = (names.STAGE_LABEL, names.ATTEMPT_LABEL)


class Denied(Exception):  # noqa: N818 - an answer, not a fault
    """The push is refused with this HTTP status and sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence


@dataclass(frozen=True)
class Sender:
    """The attempt whose pod pushes."""

    namespace: str
    job: str
    job_uid: str
    stage: str
    attempt: str
    # The pod's.
    creation_time: str


class Authenticator:
    """Checks tokens by TokenReview, then the pod of a token and its owners; caches what was proven for a minute."""

    def __init__(self, client: KubeClient, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._clock = clock
        self._proven: OrderedDict[bytes, tuple[float, Sender]] = OrderedDict()
        self._reviews = asyncio.Semaphore(_CONCURRENT_REVIEWS)

    async def sender(self, token: str, namespace: str, name: str) -> Sender:
        """Return the sender if it may report on this FineTuneJob.

        Raises:
            Denied: it may not.
            KubeError: the API server cannot be reached.
        """
        digest = hashlib.sha256(token.encode()).digest()
        now = self._clock()
        cached = self._proven.get(digest)
        if cached is not None and now < cached[0]:
            sender = cached[1]
        else:
            async with self._reviews:
                sender = await self._prove(token, namespace)
            self._proven[digest] = (now + CACHE_SECONDS, sender)
            self._proven.move_to_end(digest)
            if len(self._proven) > _CACHE_ENTRIES:
                self._proven.popitem(last=False)
        if (sender.namespace, sender.job) != (namespace, name):
            raise Denied(403, f"the token belongs to a pod of another FineTuneJob than {namespace}/{name}")
        return sender

    async def _prove(self, token: str, namespace: str) -> Sender:
        review = await self._client.review_token(token, TOKEN_AUDIENCE)
        # A server that does not support audiences answers without them, and has not checked this one then.
        if not review.get("authenticated") or TOKEN_AUDIENCE not in (review.get("audiences") or []):
            raise Denied(401, f"the token is not valid for the audience {TOKEN_AUDIENCE}")
        user = review.get("user") or {}
        extra = user.get("extra") or {}
        pod_names, pod_uids = extra.get(_POD_NAME) or [], extra.get(_POD_UID) or []
        if len(pod_names) != 1 or len(pod_uids) != 1:
            raise Denied(403, "the token is not bound to a pod")
        if not str(user.get("username", "")).startswith(f"system:serviceaccount:{namespace}:"):
            raise Denied(403, f"the token belongs to another namespace than {namespace}")
        try:
            pod = await self._client.get(PODS, namespace, pod_names[0])
        except NotFound:
            raise Denied(403, "the pod of the token is gone") from None
        if pod["metadata"]["uid"] != pod_uids[0]:
            raise Denied(403, "the pod of the token is gone")
        if (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
            raise Denied(403, "the pod of the token has ended")
        return await self._owner_of(pod, namespace)

    async def _owner_of(self, pod: Object, namespace: str) -> Sender:
        """Follow pod -> Job -> FineTuneJob by uid: anyone could set the labels."""
        stranger = Denied(403, "the pod of the token does not belong to a FineTuneJob")
        labels = pod["metadata"].get("labels") or {}
        try:
            sender = Sender(
                namespace,
                labels[names.JOB_LABEL],
                labels[names.JOB_UID_LABEL],
                labels[names.STAGE_LABEL],
                labels[names.ATTEMPT_LABEL],
                pod["metadata"]["creationTimestamp"],
            )
        except KeyError:
            raise stranger from None
        owner = next(
            (o for o in pod["metadata"].get("ownerReferences") or [] if o.get("controller") and o["kind"] == "Job"),
            None,
        )
        if owner is None:
            raise stranger
        try:
            job = await self._client.get(JOBS, namespace, owner["name"])
            fine_tune_job = await self._client.get(FINETUNE_JOBS, namespace, sender.job)
        except NotFound:
            raise Denied(404, f"{KIND} {namespace}/{sender.job} with this pod no longer exists") from None
        uids = (job["metadata"]["uid"], controller_uid(job), fine_tune_job["metadata"]["uid"])
        if uids != (owner["uid"], sender.job_uid, sender.job_uid):
            raise stranger
        if {k: (job["metadata"].get("labels") or {}).get(k) for k in _ATTEMPT} != {k: labels[k] for k in _ATTEMPT}:
            raise stranger
        return sender
