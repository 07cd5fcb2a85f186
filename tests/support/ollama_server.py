"""A real Ollama on loopback, with a home of its own."""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

from tests.support.s3_server import free_port
from tests.support.smollm2 import cache

_START_SECONDS = 60
_ANSWER_SECONDS = 120


class Ollama:
    """One server and its command line."""

    def __init__(self, home: Path, port: int) -> None:
        self.home = home
        self.host = f"127.0.0.1:{port}"
        self.program = cache() / "bin" / "ollama"

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {
            "HOME": str(self.home),
            "OLLAMA_HOST": self.host,
            "OLLAMA_MODELS": str(self.home / "models"),
        }

    def create(self, name: str, modelfile: Path) -> None:
        """Run `ollama create` in the folder of the Modelfile, as SERVE.md says."""
        command = [str(self.program), "create", name, "-f", modelfile.name]
        done = subprocess.run(
            command, cwd=modelfile.parent, env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Return the answer of its API."""
        request = Request(f"http://{self.host}{path}", json.dumps(body).encode(), {"Content-Type": "application/json"})
        with urlopen(request, timeout=_ANSWER_SECONDS) as response:
            found: dict[str, Any] = json.loads(response.read())
            return found

    def ready(self) -> bool:
        """Whether it answers."""
        try:
            with urlopen(f"http://{self.host}/api/version", timeout=5):
                return True
        except (URLError, OSError):
            return False


@contextmanager
def serve(home: Path) -> Iterator[Ollama]:
    """Start a server, and end it."""
    server = Ollama(home, free_port())
    with (home / "ollama.log").open("wb") as log:
        process = subprocess.Popen(
            [str(server.program), "serve"], env=server.environment, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            deadline = time.monotonic() + _START_SECONDS
            while not server.ready():
                assert process.poll() is None, (home / "ollama.log").read_text(errors="replace")
                assert time.monotonic() < deadline, "Ollama did not start"
                time.sleep(0.1)
            yield server
        finally:
            # It ends the programs that hold the models itself.
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
