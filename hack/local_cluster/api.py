"""A small client for the cluster's API server, with its admin token."""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.request
from typing import Any

from .state import State

Object = dict[str, Any]


class ApiError(Exception):
    """The API server said no, or did not answer; ``status`` is 0 in the second case."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def request(
    state: State,
    method: str,
    path: str,
    body: object = None,
    *,
    content_type: str = "application/json",
    timeout_seconds: float = 10,
) -> str:
    """The response's text. Raises ApiError."""
    data = None if body is None else json.dumps(body).encode()
    call = urllib.request.Request(state.url("apiserver") + path, data=data, method=method)
    call.add_header("Authorization", f"Bearer {state.tokens['admin']}")
    call.add_header("Content-Type", content_type)
    try:
        context = ssl.create_default_context(cafile=str(state.layout.pki / "ca.crt"))
        with _opener(context).open(call, timeout=timeout_seconds) as response:
            return str(response.read().decode())
    except urllib.error.HTTPError as error:
        detail = error.read().decode(errors="replace")
        raise ApiError(error.code, f"{method} {path}: HTTP {error.code}: {detail[:600]}") from error
    except OSError as error:
        raise ApiError(0, f"{method} {path}: {error}") from error


def get(state: State, path: str) -> Object:
    """The object or list at ``path``. Raises ApiError."""
    content = json.loads(request(state, "GET", path))
    if not isinstance(content, dict):
        raise ApiError(0, f"GET {path}: not an object")
    return content


def find(state: State, path: str) -> Object | None:
    """The object at ``path``, or None if there is none. Raises ApiError for all else."""
    try:
        return get(state, path)
    except ApiError as error:
        if error.status == 404:
            return None
        raise


def apply(state: State, path: str, manifest: Object) -> None:
    """Creates or updates the object by server-side apply. Raises ApiError."""
    request(
        state,
        "PATCH",
        f"{path}/{manifest['metadata']['name']}?fieldManager=local-cluster&force=true",
        manifest,
        content_type="application/apply-patch+yaml",
    )


def delete(state: State, path: str) -> None:
    """Deletes an object or a whole list; what is gone already is no error. Raises ApiError."""
    try:
        request(state, "DELETE", path)
    except ApiError as error:
        if error.status not in (404, 409):
            raise


def probe(url: str, timeout_seconds: float = 2) -> str | None:
    """None if a health address answers with success, else what is wrong.

    The certificate is not looked at: components sign their own for these addresses.
    """
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with _opener(context).open(url, timeout=timeout_seconds):
            return None
    except urllib.error.HTTPError as error:
        return f"{url}: HTTP {error.code}"
    except OSError as error:
        return f"{url}: {error}"


def _opener(context: ssl.SSLContext) -> urllib.request.OpenerDirector:
    # A proxy in the environment must not come between us and our own cluster.
    return urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
