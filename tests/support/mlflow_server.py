"""A real MLflow server on 127.0.0.1, with its database in a folder. `hack/venv mlflow` installs it."""

import os
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from local_cluster.layout import cache
from tests.support.s3_server import free_port

_START_SECONDS = 120


def binary() -> Path | None:
    """Return the program, or None where it is not installed."""
    path = cache() / "venv" / "mlflow" / "bin" / "mlflow"
    return path if path.is_file() else None


@contextmanager
def running(root: Path) -> Iterator[Callable[[], str]]:
    """Start a server; what is yielded waits until it answers, which takes seconds, and returns the base URL."""
    program = binary()
    assert program is not None, "hack/venv mlflow installs the server"
    root.mkdir(parents=True, exist_ok=True)
    port = free_port()
    command = [
        *(str(program), "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
        *("--backend-store-uri", f"sqlite:///{root}/mlflow.db", "--artifacts-destination", str(root / "artifacts")),
    ]
    environment = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true", "HOME": str(root)}
    environment.pop("PYTHONPATH", None)
    with (root / "server.log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, env=environment, cwd=root, start_new_session=True
        )
    url = f"http://127.0.0.1:{port}"

    def ready() -> str:
        _wait(process, url, root)
        return url

    try:
        yield ready
    finally:
        # With its workers, and at once: nobody reads what it would still write, and asked politely it takes seconds.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait(process: "subprocess.Popen[bytes]", url: str, root: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        assert process.poll() is None, (root / "server.log").read_text()
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=2):
                return
        except OSError:
            assert time.monotonic() < deadline, (root / "server.log").read_text()
            time.sleep(0.25)
