"""The API server by its REST API, for what is asked often: kubectl takes a tenth of a second of CPU to start."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import urllib3

from finetune_api import GROUP, PLURAL, VERSION

Object = dict[str, Any]

MERGE = "application/merge-patch+json"
_ANSWER_SECONDS = 120.0
_PREFIXES = {PLURAL: f"/apis/{GROUP}/{VERSION}", "jobs": "/apis/batch/v1"} | dict.fromkeys(
    ("configmaps", "events", "namespaces", "pods", "resourcequotas", "serviceaccounts", "services"), "/api/v1"
)


class RefusedError(AssertionError):
    """The API server's answer is no success."""

    def __init__(self, what: str, answer: Object) -> None:
        super().__init__(f"{what}: {answer.get('message')}")
        self.status: int = answer["code"]
        self.details: Object = answer.get("details", {})


def knows(plural: str) -> bool:
    """Whether `path` has it."""
    return plural in _PREFIXES


def path(plural: str, namespace: str | None, name: str = "", subresource: str = "") -> str:
    """Return the path of an object, a list or a subresource."""
    parts = [_PREFIXES[plural], *(("namespaces", namespace) if namespace else ()), plural, name, subresource]
    return "/".join(part for part in parts if part)


@dataclass(frozen=True)
class Rest:
    """A client with the rights of a kubeconfig's user. It keeps its connections, and may be used by several threads."""

    server: str
    token: str
    authority: str
    _pool: urllib3.PoolManager = field(init=False)

    @classmethod
    def of(cls, kubeconfig: Path) -> "Rest":
        """Read a kubeconfig of the local cluster."""
        content = json.loads(kubeconfig.read_text())
        cluster, user = content["clusters"][0]["cluster"], content["users"][0]["user"]
        return cls(cluster["server"], user["token"], cluster["certificate-authority"])

    def __post_init__(self) -> None:
        pool = urllib3.PoolManager(ca_certs=self.authority, maxsize=4, timeout=_ANSWER_SECONDS)
        object.__setattr__(self, "_pool", pool)

    def call(
        self, method: str, url: str, body: Object | None = None, *, content_type: str = "application/json", **query: str
    ) -> Object:
        """Make one request; `query` are parameters of the URL.

        Raises:
            RefusedError: the answer is no success; the message is the API server's.
            urllib3.exceptions.HTTPError: there is none.
        """
        answer = self._pool.request(
            method,
            f"{self.server}{url}?{urlencode(query)}",
            body=json.dumps(body).encode() if body is not None else None,
            headers={"Authorization": f"Bearer {self.token}", "Content-Type": content_type},
        )
        found: Object = json.loads(answer.data)
        if answer.status >= 300:
            raise RefusedError(f"{method} {url}", found)
        return found

    def items(self, plural: str, namespace: str, **query: str) -> list[Object]:
        """Return what a list has, each with its kind."""
        found = self.call("GET", path(plural, namespace), None, **query)
        kind = found["kind"].removesuffix("List")
        return [{"kind": kind, **item} for item in found["items"]]

    def version(self, plural: str, namespace: str) -> str:
        """Return the resourceVersion of now, from which on `events` can tell."""
        version: str = self.call("GET", path(plural, namespace))["metadata"]["resourceVersion"]
        return version

    def events(self, plural: str, namespace: str, since: str, last: str) -> list[Object]:
        """Return what a watch shows after one resourceVersion up to the event with another; both have happened."""
        query = urlencode({"watch": "true", "resourceVersion": since})
        answer = self._pool.request(
            "GET",
            f"{self.server}{path(plural, namespace)}?{query}",
            headers={"Authorization": f"Bearer {self.token}"},
            preload_content=False,
        )
        found: list[Object] = []
        try:
            for line in answer:
                found.append(json.loads(line))
                assert found[-1]["type"] != "ERROR", found[-1]
                if found[-1]["object"]["metadata"]["resourceVersion"] == last:
                    return found
        finally:
            answer.close()
        raise AssertionError(f"the watch ended before {last}")

    def delete(self, url: str, **options: Any) -> None:
        """Delete an object; one that is gone is no error. `options` are those of DeleteOptions."""
        try:
            self.call("DELETE", url, {"kind": "DeleteOptions", "apiVersion": "v1", **options})
        except RefusedError as refused:
            if refused.status != 404:
                raise
