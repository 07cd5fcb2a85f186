"""A stand-in hub on a loopback port: the part of the hub's protocol that fetching models and datasets takes."""

import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

COMMIT = "a" * 40
TOKEN = "hub-token"


@dataclass
class HubServer:
    """Serves every folder org/name (models) and datasets/org/name below `root`; one named private-... wants TOKEN."""

    endpoint: str
    root: Path
    # (path, Range header) of every download.
    downloads: list[tuple[str, str | None]] = field(default_factory=list)
    # Of every request for a file.
    revisions: list[str] = field(default_factory=list)


@contextmanager
def running(root: Path) -> Iterator[HubServer]:
    """Run a hub until the block ends."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def _answer(self, with_body: bool) -> None:
            parts = self.path.partition("?")[0].strip("/").split("/")
            if parts[:2] == ["api", "models"]:
                self._model_info("/".join(parts[2:4]), parts[5])
            elif len(parts) == 5 and parts[2] == "resolve":
                self._file("/".join(parts[:2]), parts[3], parts[4], with_body)
            elif len(parts) == 6 and (parts[0], parts[3]) == ("datasets", "resolve"):
                self._file("/".join(parts[:3]), parts[4], parts[5], with_body)
            else:
                self._send(404, b"")

        def _model_info(self, repository: str, revision: str) -> None:
            folder = root / repository
            if not self._refused(repository, revision):
                files = [_description(p) for p in sorted(folder.iterdir())]
                self._send(200, json.dumps({"id": repository, "sha": COMMIT, "siblings": files}).encode())

        def _refused(self, repository: str, revision: str) -> bool:
            if "/private-" in repository and self.headers.get("Authorization") != f"Bearer {TOKEN}":
                self._send(401, b"", {"X-Error-Code": "GatedRepo"})
            elif not (root / repository).is_dir():
                self._send(404, b"", {"X-Error-Code": "RepoNotFound"})
            elif revision not in ("main", COMMIT):
                self._send(404, b"", {"X-Error-Code": "RevisionNotFound"})
            else:
                return False
            return True

        def _file(self, repository: str, revision: str, name: str, with_body: bool) -> None:
            path = root / repository / name
            hub.revisions.append(revision)
            if self._refused(repository, revision):
                return
            if not path.is_file():
                self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
                return
            data = path.read_bytes()
            wanted = self.headers.get("Range")
            if with_body:
                hub.downloads.append((name, wanted))
            status = 200
            if wanted:
                start, _, end = wanted.removeprefix("bytes=").partition("-")
                data, status = data[int(start) : int(end) + 1 if end else None], 206
            headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{_blob_id(path)}"', "Accept-Ranges": "bytes"}
            self._send(status, data, headers, with_body)

        def _send(self, status: int, data: bytes, headers: dict[str, str] | None = None, body: bool = True) -> None:
            self.send_response(status)
            for name, value in ({"Content-Type": "application/json"} | (headers or {})).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if body:
                self.wfile.write(data)

        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        hub = HubServer(f"http://127.0.0.1:{server.server_address[1]}", root)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()


def _description(path: Path) -> dict[str, object]:
    size = path.stat().st_size
    found: dict[str, object] = {"rfilename": path.name, "size": size, "blobId": _blob_id(path)}
    if path.suffix == ".safetensors":
        found["lfs"] = {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "size": size, "pointerSize": 130}
    return found


def _blob_id(path: Path) -> str:
    return hashlib.sha1(path.read_bytes()).hexdigest()
