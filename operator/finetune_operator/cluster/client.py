"""A client of the API server: dictionaries in and out, one request per call, every timeout explicit."""

import copy
import json
import os
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self, TypeAlias
from urllib.parse import quote
from urllib.request import getproxies_environment

import aiohttp
from kubernetes.aio import client, config

from finetune_api import GROUP, PLURAL, VERSION
from finetune_operator.cluster.errors import AlreadyExists, ApiError, Conflict, NotFound, Unreachable

Object: TypeAlias = dict[str, Any]
Propagation = Literal["Foreground", "Background"]

_TIMEOUT = aiohttp.ClientTimeout(sock_connect=5.0, total=30.0)
# Includes the wait for a connection: together with the renew deadline it is less than the duration of the Lease.
_PERMITTED_TIMEOUT = aiohttp.ClientTimeout(connect=2.0, sock_connect=2.0, total=30.0)
_PAGE = 500
_JSON = "application/json"
# Server-side apply takes YAML, and JSON is YAML.
_APPLY = "application/apply-patch+yaml"


@dataclass(frozen=True)
class Resource:
    """A resource type by its path and its plural name."""

    prefix: str
    plural: str

    def path(self, namespace: str | None, name: str | None = None, subresource: str | None = None) -> str:
        """Return the URL path; without a namespace that of the cluster-wide list, or of a cluster-wide object."""
        parts = [self.prefix]
        if namespace is not None:
            parts += ["namespaces", quote(namespace, safe="")]
        parts.append(self.plural)
        parts += [quote(part, safe="") for part in (name, subresource) if part is not None]
        return "/".join(parts)


FINETUNE_JOBS = Resource(f"/apis/{GROUP}/{VERSION}", PLURAL)
JOBS = Resource("/apis/batch/v1", "jobs")
PODS = Resource("/api/v1", "pods")
CONFIG_MAPS = Resource("/api/v1", "configmaps")
SERVICES = Resource("/api/v1", "services")
SECRETS = Resource("/api/v1", "secrets")
EVENTS = Resource("/api/v1", "events")
NAMESPACES = Resource("/api/v1", "namespaces")
LEASES = Resource("/apis/coordination.k8s.io/v1", "leases")
WORKLOADS = Resource("/apis/kueue.x-k8s.io/v1beta2", "workloads")


async def load_configuration() -> client.Configuration:
    """Return how to reach the API server: KUBECONFIG if it is set, else the pod's own service account.

    In a pod the token file is read again every minute.
    """
    configuration = client.Configuration()
    if os.environ.get("KUBECONFIG"):
        await config.load_kube_config(client_configuration=configuration, persist_config=False)  # type: ignore[no-untyped-call]
    else:
        config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    # The client repeats reads that are answered 429 or 503 with Retry-After, as client-go does.
    configuration.client_go_retries = True
    # With trust_env each request would look for proxies and for a .netrc.
    configuration.client_session_kwargs = {"trust_env": bool(getproxies_environment())}
    return configuration


def _error(status: int, body: bytes) -> ApiError:
    try:
        document = json.loads(body)
    except ValueError:
        document = None
    found = document if isinstance(document, dict) else {}
    reason = str(found.get("reason") or "Unknown")
    message = str(found.get("message") or "the API server gave no message")
    if status == 404:
        return NotFound(status, reason, message)
    if status == 409:
        return (AlreadyExists if reason == "AlreadyExists" else Conflict)(status, reason, message)
    return ApiError(status, reason, message)


class KubeClient:
    """The verbs that the operator uses. Close it at the end, from the event loop that used it.

    Every method raises `ApiError` or a subclass for an answer that is not a success, and `Unreachable` without answer.
    """

    def __init__(self, configuration: client.Configuration) -> None:
        self._api = client.ApiClient(configuration)
        self._permit: Callable[[], None] | None = None

    def permitted(self, permit: Callable[[], None]) -> Self:
        """Return a client with the same connections that calls `permit` right before it sends a write.

        If `permit` raises, the request is not sent. A write also fails sooner if there is no connection, so that it is
        not sent long after it was permitted.
        """
        permitted = copy.copy(self)
        permitted._permit = permit
        return permitted

    async def close(self) -> None:
        """Close the connections."""
        await self._api.close()  # type: ignore[no-untyped-call]

    async def _request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        content_type: str = _JSON,
    ) -> Object:
        arguments = await self._api.param_serialize(
            method,
            path,
            query_params=list((query or {}).items()),
            header_params={"Accept": _JSON, "Content-Type": content_type},
            body=body,
            auth_settings=["BearerToken"],
        )
        timeout = _TIMEOUT
        if self._permit is not None and method != "GET":
            self._permit()
            timeout = _PERMITTED_TIMEOUT
        try:
            response = await self._api.call_api(*arguments, _request_timeout=timeout)
            data: bytes = await response.read()  # type: ignore[no-untyped-call]
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unreachable(f"{method} {path}: {type(error).__name__}: {error}") from error
        except client.ApiException as error:
            # Only after the client's own retries, whose last answer was not read.
            raise _error(error.status, b"") from error
        if not 200 <= response.status < 300:
            raise _error(response.status, data)
        result: Object = json.loads(data)
        return result

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Object:
        """Read one object, consistently (not from the API server's cache)."""
        return await self._request("GET", resource.path(namespace, name))

    async def list(
        self, resource: Resource, namespace: str | None, *, labels: str = "", fields: str = ""
    ) -> list[Object]:
        """Read all matching objects, consistently; `namespace` None reads the whole cluster."""
        return [item async for item in self.each(resource, namespace, labels=labels, fields=fields)]

    async def each(
        self, resource: Resource, namespace: str | None, *, labels: str = "", fields: str = ""
    ) -> AsyncIterator[Object]:
        """Read as `list` does, with no more than a page of objects in memory."""
        selectors = {"labelSelector": labels, "fieldSelector": fields}
        query = {"limit": str(_PAGE)} | {key: value for key, value in selectors.items() if value}
        while True:
            page = await self._request("GET", resource.path(namespace), query=query)
            for item in page.get("items") or []:
                yield item
            token = page["metadata"].get("continue")
            if not token:
                return
            query["continue"] = token

    async def create(self, resource: Resource, namespace: str, body: Object) -> Object:
        """Create an object.

        Raises:
            AlreadyExists: the name is taken.
        """
        return await self._request("POST", resource.path(namespace), body=body)

    async def replace(self, resource: Resource, namespace: str, name: str, body: Object) -> Object:
        """Replace an object as a whole.

        Raises:
            Conflict: it is no longer at the body's resourceVersion.
        """
        return await self._request("PUT", resource.path(namespace, name), body=body)

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
        """Delete an object as it was read. Foreground: its dependents that block it are deleted first.

        Raises:
            NotFound: it is gone.
            Conflict: it has changed since, or was replaced by another one.
        """
        options = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": propagation,
            "preconditions": {"uid": uid, "resourceVersion": resource_version},
        }
        await self._request("DELETE", resource.path(namespace, name), body=options)

    async def apply_status(
        self, resource: Resource, namespace: str, name: str, body: Object, *, manager: str
    ) -> Object:
        """Server-side apply the status subresource under a field manager.

        Raises:
            Conflict: `metadata.resourceVersion` or `metadata.uid` of the body is not the present one.
        """
        return await self._request(
            "PATCH",
            resource.path(namespace, name, "status"),
            query={"fieldManager": manager, "force": "true"},
            body=body,
            content_type=_APPLY,
        )

    async def groups(self) -> set[str]:
        """Return the names of the API groups that are served now, including those of custom resources."""
        found = await self._request("GET", "/apis")
        return {group["name"] for group in found["groups"]}

    async def review_token(self, token: str, audience: str) -> Object:
        """Ask the API server whose token this is; return the status of the TokenReview."""
        review = await self._request(
            "POST",
            "/apis/authentication.k8s.io/v1/tokenreviews",
            body={
                "apiVersion": "authentication.k8s.io/v1",
                "kind": "TokenReview",
                "spec": {"token": token, "audiences": [audience]},
            },
        )
        status: Object = review.get("status") or {}
        return status
