"""A dataset file on a web server."""

import hashlib
import http.client
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any
from urllib.parse import urljoin, urlsplit

from finetune_api.policy import Policy
from finetune_trainer.errors import AccessDeniedError, DatasetError, NoAnswerError, StageError, UnavailableError
from finetune_trainer.network import patience
from finetune_trainer.runtime.endpoint_policy import check_source
from finetune_trainer.storage.store import Progress

_MAXIMUM_REDIRECTS = 5
_CHUNK = 1024 * 1024
_DENIED = (401, 403, 407)
_TRY_AGAIN = (408, 425, 429)


def download(
    url: str, sha256: str, path: Path, *, policy: Policy, name: str, field: str, room: Callable[[int], Progress]
) -> None:
    """Download to `path` and check the bytes. Proxies are the environment's (HTTPS_PROXY, NO_PROXY).

    `name` and `field` are the source's name and spec field in messages. `room` is called before the download with the
    size in bytes (0: unknown) and returns the progress callback, which fails if the file is too large.

    Raises:
        DatasetError: the file does not exist, or has another checksum.
        AccessDeniedError: the server requires credentials.
        UnavailableError: the server does not answer, or stops during the download.
        SettingsError: the policy does not allow the server, or one that it redirects to; or from `room`.
    """
    where = f'source "{name}": {_shown(url)}'
    found = patience.patiently(lambda: _downloaded(url, path, policy, where, field, room))
    if found != sha256:
        path.unlink()
        raise DatasetError(
            f"{where} has sha256 {found}, not {sha256}: the file changed or is a different one; "
            f"check it and correct {field}.http.sha256"
        )


def _downloaded(url: str, path: Path, policy: Policy, where: str, field: str, room: Callable[[int], Progress]) -> str:
    opener = _opener(policy, where, f"{field}.http.url")
    try:
        with opener.open(_request(url), timeout=patience.ANSWER) as answer:
            return _save(answer, path, room, where)
    except urllib.error.HTTPError as error:
        error.close()
        raise _refusal(error.code, where, field) from error
    except (OSError, http.client.HTTPException) as error:
        raise _no_answer(error, where, field) from error


def _request(url: str) -> urllib.request.Request:
    # "identity": the checksum is of the file, not of a compressed transfer.
    return urllib.request.Request(url, headers={"Accept-Encoding": "identity", "User-Agent": "finetune-trainer"})  # noqa: S310 - the handlers accept http and https only


def _save(answer: Any, path: Path, room: Callable[[int], Progress], where: str) -> str:
    declared = answer.headers.get("Content-Length")
    size = int(declared) if declared and declared.isdigit() else None
    progress = room(size or 0)
    digest, done = hashlib.sha256(), 0
    with path.open("wb") as file:
        while chunk := answer.read(_CHUNK):
            progress(len(chunk))
            file.write(chunk)
            digest.update(chunk)
            done += len(chunk)
    if size is not None and done != size:
        raise NoAnswerError(f"{where}: the server stopped after {done} of {size} bytes; try again")
    return digest.hexdigest()


def _refusal(status: int, where: str, field: str) -> StageError:
    if status in _DENIED:
        return AccessDeniedError(
            f"{where} requires a login (HTTP {status}); "
            "put the file on S3, a volume or the hub, which take credentials from a Secret"
        )
    if status >= 500 or status in _TRY_AGAIN:
        return NoAnswerError(f"{where}: the server answered HTTP {status}; try again when it has recovered")
    if 300 <= status < 400:
        return DatasetError(
            f"{where} does not lead to a file within {_MAXIMUM_REDIRECTS} redirects (HTTP {status}); "
            f"set {field}.http.url to the URL of the file itself"
        )
    return DatasetError(f"{where} was not found (HTTP {status}); correct {field}.http.url")


def _no_answer(error: Exception, where: str, field: str) -> UnavailableError:
    reason = getattr(error, "reason", error)
    if isinstance(reason, ssl.SSLError):
        return UnavailableError(
            f"{where}: the server's certificate is not trusted; "
            "use a server whose certificate authority the trainer image trusts"
        )
    return NoAnswerError(
        f"{where}: the server does not answer ({type(reason).__name__}); "
        f"check {field}.http.url, the network and NetworkPolicies",
        unknown_name=patience.is_unknown_name(error) or patience.is_unknown_name(reason),
    )


def _shown(url: str) -> str:
    """Return the URL without its query, which may contain a token."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}{parts.path}"


def _opener(policy: Policy, where: str, field: str) -> urllib.request.OpenerDirector:
    """Return an opener that follows redirects and proxies, and connects to the addresses that were checked."""
    checked: dict[str, list[str]] = {}

    def connected(connection: http.client.HTTPConnection) -> socket.socket | None:
        # A proxy is set by the administrator: it is not checked and resolves names itself.
        for address in checked.get(connection.host.lower(), []):
            try:
                return socket.create_connection((address, connection.port), patience.ANSWER)
            except OSError as error:
                failure = error
        if connection.host.lower() in checked:
            raise failure
        return None

    class HTTPConnection(http.client.HTTPConnection):
        def connect(self) -> None:
            if (found := connected(self)) is None:
                super().connect()
            else:
                self.sock = found

    context = ssl.create_default_context()

    class HTTPSConnection(http.client.HTTPSConnection):
        def connect(self) -> None:
            if (found := connected(self)) is None:
                super().connect()
            else:
                self.sock = context.wrap_socket(found, server_hostname=self.host)

    class HTTPHandler(urllib.request.HTTPHandler):
        def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(HTTPConnection, req)

    class HTTPSHandler(urllib.request.HTTPSHandler):
        def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(HTTPSConnection, req, context=context)

    class Redirects(urllib.request.HTTPRedirectHandler):
        max_redirections = _MAXIMUM_REDIRECTS

        def http_error_302(
            self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: http.client.HTTPMessage
        ) -> Any:
            if urlsplit(urljoin(req.full_url, headers.get("Location", ""))).scheme not in ("http", "https"):
                raise DatasetError(
                    f"{where} redirects to another scheme than http(s); set {field} to the URL of the file itself"
                )
            return super().http_error_302(req, fp, code, msg, headers)

        http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302

    class Checks(urllib.request.BaseHandler):
        # Before the proxy handler, which changes the request's host.
        handler_order = 1

        def http_request(self, req: urllib.request.Request) -> urllib.request.Request:
            host = (urlsplit(req.full_url).hostname or "").lower()
            proxied = req.type in urllib.request.getproxies() and not urllib.request.proxy_bypass(host)
            addresses = check_source(policy, req.full_url, field)
            if not proxied:
                checked[host] = addresses
            return req

        https_request = http_request

    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        HTTPHandler(),
        HTTPSHandler(context=context),
        Redirects(),
        Checks(),
    ):
        opener.add_handler(handler)
    return opener
