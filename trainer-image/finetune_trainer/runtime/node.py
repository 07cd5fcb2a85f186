"""This pod's place among the pods that train one adapter together. Most jobs have one pod."""

from dataclasses import dataclass

# The same as torchrun's.
PORT = 29400


@dataclass(frozen=True)
class Node:
    """One pod's place among `count`."""

    index: int = 0
    count: int = 1
    # Where the other pods reach the first one.
    host: str = "127.0.0.1"
    port: int = PORT

    @property
    def leads(self) -> bool:
        """Whether its first process leads: it alone writes the bucket, reports progress and judges the result."""
        return self.index == 0

    @property
    def alone(self) -> bool:
        """Whether it is the only pod."""
        return self.count == 1


ALONE = Node()


def address(text: str) -> tuple[str, int]:
    """Read HOST or HOST:PORT; an IPv6 address has brackets around it where a port follows.

    Raises:
        ValueError: it is neither.
    """
    host, colon, port = text.rpartition(":")
    if not colon or (":" in host and not host.endswith("]")):
        host, port = text, str(PORT)
    number = int(port)
    host = host.removeprefix("[").removesuffix("]")
    if not host or not 0 < number < 65536:
        raise ValueError(text)
    return host, number
