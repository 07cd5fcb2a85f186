"""A real S3 server on a loopback port: versitygw over a folder."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from local_cluster.layout import cache

ACCESS_KEY = "test-access"
SECRET_KEY = "test-secret-key"


@dataclass(frozen=True)
class S3Server:
    """A running server. Every folder of `root` is a bucket."""

    endpoint: str
    root: Path
    process: subprocess.Popen[bytes]

    def make_bucket(self, name: str) -> None:
        """Make an empty bucket."""
        (self.root / name).mkdir()

    def credentials(self, folder: Path, secret_key: str = SECRET_KEY) -> Path:
        """Write the two keys as the kubelet mounts a Secret, and return the folder."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "AWS_ACCESS_KEY_ID").write_text(ACCESS_KEY)
        (folder / "AWS_SECRET_ACCESS_KEY").write_text(secret_key)
        return folder


def binary() -> Path | None:
    """Return versitygw, or None where it is not built."""
    built = cache() / "bin" / "versitygw"
    found = str(built) if built.is_file() else shutil.which("versitygw")
    return Path(found) if found else None


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@contextmanager
def running(root: Path, address: str = "127.0.0.1") -> Iterator[S3Server]:
    """Run a server over `root` until the block ends."""
    program = binary()
    assert program is not None, "build versitygw with `hack/cluster build --only control-plane`"
    root.mkdir(parents=True, exist_ok=True)
    port = free_port()
    command = [str(program), "--access", ACCESS_KEY, "--secret", SECRET_KEY, "--port", f"{address}:{port}"]
    process = subprocess.Popen(
        [*command, "posix", str(root)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={"PATH": os.environ["PATH"], "HOME": str(root)},
    )
    try:
        _wait_until_it_listens(process, address, port)
        yield S3Server(f"http://{address}:{port}", root, process)
    finally:
        process.kill()
        process.wait()


def _wait_until_it_listens(process: subprocess.Popen[bytes], address: str, port: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, "versitygw ended at once"
        with socket.socket() as probe:
            if probe.connect_ex((address, port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError("versitygw does not listen")
