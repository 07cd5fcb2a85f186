"""llama.cpp's own server on loopback."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from finetune_trainer.data.rows.example import Message
from local_cluster.layout import cache
from tests.support.local_api import LocalApi
from tests.support.s3_server import free_port


class LlamaServer(LocalApi):
    """One server with one model."""

    def rendered(self, messages: list[Message]) -> tuple[str, list[int]]:
        """Return what it sends to the model for a conversation: the text, and the token ids of it."""
        text = self.post("/apply-template", {"messages": messages})["prompt"]
        return text, self.post("/tokenize", {"content": text, "add_special": True})["tokens"]

    def answer(self, messages: list[Message], most: int = 24) -> str:
        """Return its most likely answer, of at most so many tokens."""
        body = {"messages": messages, "temperature": 0, "max_tokens": most}
        (choice,) = self.post("/v1/chat/completions", body)["choices"]
        content: str = choice["message"]["content"]
        return content


@contextmanager
def serve(folder: Path, model: Path, *arguments: str) -> Iterator[LlamaServer]:
    """Start a server with further arguments, and end it; its log is in `folder`."""
    port = free_port()
    server = LlamaServer(port)
    program = str(cache() / "bin" / "llama-server")
    command = [program, "-m", str(model), "--host", "127.0.0.1", "--port", str(port), "--jinja", "-c", "512"]
    with server.running([*command, *arguments], folder / f"llama-server-{port}.log", "/health"):
        yield server
