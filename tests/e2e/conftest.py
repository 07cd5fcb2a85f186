"""One platform for all end-to-end tests, which run side by side; each test has a namespace of its own."""

import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import pytest

from local_platform.platform import CLUSTER, bring_up, run
from tests.support import tiny_model

from .jobs import SturdyPlatform, Watch

pytestmark = pytest.mark.e2e
# The local cluster is one: with CLUSTER=current it is left alone.
_OWN = os.environ.get("CLUSTER") != "current"
# Tells the workers of pytest-xdist that the platform is up, and how to reach it.
_UP = "platform.json"
_IS_WORKER = "PYTEST_XDIST_WORKER" in os.environ

if _IS_WORKER:
    # Tests wait for pods, and whoever starts the cluster must not lend it the CPU of one worker alone.
    os.sched_setaffinity(0, range(os.cpu_count() or 1))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Take the cluster down when all workers have ended."""
    factory: pytest.TempPathFactory = session.config._tmp_path_factory  # type: ignore[attr-defined]
    if not _IS_WORKER and _OWN and (factory.getbasetemp() / _UP).exists():
        run(CLUSTER, "down")


@pytest.fixture(scope="session")
def platform(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SturdyPlatform:
    """The local cluster, taken down at the end, or with CLUSTER=current another one; the chart is installed in it."""
    if os.geteuid() != 0 and _OWN:
        pytest.skip("kubelet and containerd need root")
    capture = request.config.pluginmanager.getplugin("capturemanager")

    def say(line: str) -> None:
        with capture.global_and_fixture_disabled():
            print(line, flush=True)

    folder = tmp_path_factory.getbasetemp()
    up = (folder.parent if _IS_WORKER else folder) / _UP
    with up.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not up.exists():
            say("")
            made = {"platform": asdict(bring_up(say)), "PATH": os.environ["PATH"]}
            up.write_text(json.dumps(made))
        found = json.loads(up.read_text())
    os.environ["PATH"] = found["PATH"]
    return SturdyPlatform(**found["platform"])


@pytest.fixture(scope="session")
def random_model(platform: SturdyPlatform, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URI of a model of random weights, which trains in seconds: for tests that are not about the result."""
    folder, s3 = tiny_model.build(tmp_path_factory.mktemp("models") / "tiny"), platform.s3()
    for path in folder.iterdir():
        s3.upload_file(str(path), "models", f"random/{path.name}")
    return "s3://models/random/"


@pytest.fixture
def namespace(platform: SturdyPlatform, request: pytest.FixtureRequest) -> Iterator[str]:
    """A fresh namespace with restricted pod security and the Secret `s3`; deleted at the end."""
    name = "e2e-" + request.node.name.removeprefix("test_").replace("_", "-").split("[")[0][:40].strip("-")
    platform.kubectl("delete", "namespace", name, "--ignore-not-found", "--wait")
    platform.namespace(name)
    yield name
    platform.kubectl("delete", "namespace", name, "--wait=false", "--ignore-not-found")


@pytest.fixture
def watch(platform: SturdyPlatform) -> Iterator[Any]:
    """Start watches with `watch(kind, namespace)`; they end with the test."""
    watches: list[Watch] = []

    def start(kind: str, namespace: str) -> Watch:
        watches.append(Watch(platform, kind, namespace))
        return watches[-1]

    yield start
    for one in watches:
        one.stop()
