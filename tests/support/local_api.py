"""A server with a JSON API on loopback, run for as long as a test needs it."""

import json
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

_START_SECONDS = 60
_ANSWER_SECONDS = 120


class LocalApi:
    """The server at 127.0.0.1:`port`."""

    def __init__(self, port: int) -> None:
        self.host = f"127.0.0.1:{port}"

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Return its answer."""
        request = Request(f"http://{self.host}{path}", json.dumps(body).encode(), {"Content-Type": "application/json"})
        with urlopen(request, timeout=_ANSWER_SECONDS) as response:
            found: dict[str, Any] = json.loads(response.read())
            return found

    def is_ready(self, path: str) -> bool:
        """Whether it answers there without an error."""
        try:
            with urlopen(f"http://{self.host}{path}", timeout=5):
                return True
        except (URLError, OSError):
            return False

    @contextmanager
    def running(self, command: Sequence[str], log: Path, ready: str, **variables: str) -> Iterator[None]:
        """Run its program inside, with further environment variables, once it answers at `ready`."""
        with log.open("wb") as output:
            process = subprocess.Popen(command, env=os.environ | variables, stdout=output, stderr=subprocess.STDOUT)
            try:
                deadline = time.monotonic() + _START_SECONDS
                while not self.is_ready(ready):
                    assert process.poll() is None, log.read_text(errors="replace")
                    assert time.monotonic() < deadline, f"{command[0]} did not start"
                    time.sleep(0.1)
                yield
            finally:
                # It ends its own children.
                process.terminate()
                try:
                    process.wait(30)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
