"""A web server on a loopback port that answers as the test sets it."""

import http.server
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Answer:
    """What a path is answered with."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    # Announced, where it is not the body's.
    length: int | None = None


@dataclass
class WebServer:
    """A running server; `answers` are by path, and other paths are 404."""

    url: str
    port: int
    answers: dict[str, Answer] = field(default_factory=dict)
    # The request lines' paths, which are whole URLs where it is used as a proxy.
    paths: list[str] = field(default_factory=list)


@contextmanager
def running(certificate: Path | None = None, key: Path | None = None) -> Iterator[WebServer]:
    """Run a server until the block ends; with a certificate it speaks HTTPS."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.paths.append(self.path)
            answer = server.answers.get(self.path.partition("?")[0], Answer(404))
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            if answer.length != -1:
                self.send_header("Content-Length", str(len(answer.body) if answer.length is None else answer.length))
            self.end_headers()
            self.wfile.write(answer.body)

        def log_message(self, *args: object) -> None:
            pass

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, *args: object) -> None:
            pass  # a client that hangs up

    with Server(("127.0.0.1", 0), Handler) as listener:
        port = listener.server_address[1]
        scheme = "http"
        if certificate and key:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate, key)
            listener.socket = context.wrap_socket(listener.socket, server_side=True, do_handshake_on_connect=False)
            scheme = "https"
        server = WebServer(f"{scheme}://localhost:{port}", port)
        thread = threading.Thread(target=listener.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            listener.shutdown()
            thread.join()
