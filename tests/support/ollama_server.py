"""A real Ollama on loopback, with a home of its own."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from local_cluster.layout import cache
from tests.support.local_api import LocalApi
from tests.support.s3_server import free_port


class Ollama(LocalApi):
    """One server and its command line."""

    def __init__(self, home: Path, port: int) -> None:
        super().__init__(port)
        self.home = home
        self.program = str(cache() / "bin" / "ollama")
        self.variables = {"HOME": str(home), "OLLAMA_HOST": self.host, "OLLAMA_MODELS": str(home / "models")}

    def create(self, name: str, modelfile: Path) -> None:
        """Have a model of that name."""
        done = self.try_to_create(name, modelfile)
        assert done.returncode == 0, done.stderr

    def try_to_create(self, name: str, modelfile: Path) -> subprocess.CompletedProcess[str]:
        """Run `ollama create` in the folder of the Modelfile, as SERVE.md says."""
        command = [self.program, "create", name, "-f", modelfile.name]
        variables = os.environ | self.variables
        return subprocess.run(command, cwd=modelfile.parent, env=variables, capture_output=True, text=True, check=False)


@contextmanager
def serve(home: Path) -> Iterator[Ollama]:
    """Start a server, and end it."""
    server = Ollama(home, free_port())
    with server.running([server.program, "serve"], home / "ollama.log", "/api/version", **server.variables):
        yield server
