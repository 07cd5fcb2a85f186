"""One platform for all end-to-end tests; each test has a namespace of its own."""

import os
from collections.abc import Iterator
from typing import Any

import pytest

from local_platform.platform import CLUSTER, Platform, bring_up, run
from tests.support import tiny_model

from .jobs import Watch

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="session")
def platform(request: pytest.FixtureRequest) -> Iterator[Platform]:
    """The local cluster, taken down at the end, or with CLUSTER=current another one; the chart is installed in it."""
    if os.geteuid() != 0 and os.environ.get("CLUSTER") != "current":
        pytest.skip("kubelet and containerd need root")
    capture = request.config.pluginmanager.getplugin("capturemanager")

    def say(line: str) -> None:
        with capture.global_and_fixture_disabled():
            print(line, flush=True)

    say("")
    yield bring_up(say)
    if os.environ.get("CLUSTER") != "current":
        run(CLUSTER, "down")


@pytest.fixture(scope="session")
def random_model(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URI of a model of random weights, which trains in seconds: for tests that are not about the result."""
    folder, s3 = tiny_model.build(tmp_path_factory.mktemp("models") / "tiny"), platform.s3()
    for path in folder.iterdir():
        s3.upload_file(str(path), "models", f"random/{path.name}")
    return "s3://models/random/"


@pytest.fixture
def namespace(platform: Platform, request: pytest.FixtureRequest) -> Iterator[str]:
    """A fresh namespace with restricted pod security and the Secret `s3`; deleted at the end."""
    name = "e2e-" + request.node.name.removeprefix("test_").replace("_", "-").split("[")[0][:40].strip("-")
    platform.kubectl("delete", "namespace", name, "--ignore-not-found", "--wait")
    platform.namespace(name)
    yield name
    platform.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def watch(platform: Platform) -> Iterator[Any]:
    """Start watches with `watch(kind, namespace)`; they end with the test."""
    watches: list[Watch] = []

    def start(kind: str, namespace: str) -> Watch:
        watches.append(Watch(platform, kind, namespace))
        return watches[-1]

    yield start
    for one in watches:
        one.stop()
