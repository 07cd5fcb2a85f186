"""The operator is upgraded, and rolled back, while jobs are in progress."""

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune_api.plan import PLAN_VERSION
from local_platform.commands import ROOT
from local_platform.control_plane import CRD, ControlPlane
from local_platform.operator_process import Installed, OperatorProcess, eventually, install, upgrade
from tests.support.fake_kubelet import World

OLD = ("trainer.image.tag=1.0.0",)
NEW = ("trainer.image.tag=2.0.0", "trainer.allowCPU=true", "s3.endpoint=https://other.corp:9000")


def newer_api(folder: Path) -> Path:
    """Return a folder with the API of the next version: plans have a higher version, and the spec a member more."""
    shutil.copytree(ROOT / "crds" / "finetune_api", folder / "finetune_api")
    for name, line, replaced in (
        ("plan.py", f"PLAN_VERSION = {PLAN_VERSION}", f"PLAN_VERSION = {PLAN_VERSION + 1}"),
        ("spec.py", "    model: ModelSpec\n", "    model: ModelSpec\n    later: str | None = None\n"),
    ):
        path = folder / "finetune_api" / name
        text, count = re.subn(line, replaced, path.read_text())
        assert count == 1
        path.write_text(text)
    return folder


def newer_crd() -> dict[str, Any]:
    crd: dict[str, Any] = yaml.safe_load(CRD.read_text())
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    schema["properties"]["spec"]["properties"]["later"] = {"type": "string", "maxLength": 10}
    return crd


@dataclass
class Release:
    """One release of the chart in the old and in the new version, of which one runs at a time."""

    plane: ControlPlane
    folder: Path
    watched: str
    _installed: Installed = field(init=False)
    _running: OperatorProcess | None = None

    def __post_init__(self) -> None:
        self._installed = install(self.plane, self.folder, f"op-{self.watched}"[:60], self._watch, *OLD)

    @property
    def _watch(self) -> str:
        return f"watchNamespaces={{{self.watched}}}"

    def start_old(self) -> None:
        self.stop()
        self.plane.install_crd()
        self._start(upgrade(self._installed, self._watch, *OLD), ROOT / "crds")

    def start_new(self) -> None:
        self.stop()
        self.plane.apply(newer_crd(), "--server-side")
        api = self.folder / "next"
        self._start(upgrade(self._installed, self._watch, *NEW), api if api.exists() else newer_api(api))

    def stop(self) -> None:
        if self._running is not None and self._running.runs:
            self._running.stop()

    def _start(self, installed: Installed, api: Path) -> None:
        self._running = OperatorProcess(installed, self.folder / "operator.log", api=api)
        self._running.start()


@pytest.fixture
def release(control_plane: ControlPlane, world: World, tmp_path: Path) -> Iterator[Release]:
    made = Release(control_plane, tmp_path, world.namespace)
    try:
        yield made
    finally:
        made.stop()
        control_plane.install_crd()


def image(pod: dict[str, Any]) -> str:
    found: str = pod["spec"]["containers"][0]["image"]
    return found.rpartition(":")[2]


def test_a_job_in_train_ends_with_the_image_and_the_plan_that_it_began_with(release: Release, world: World) -> None:
    release.start_old()
    world.apply()
    world.end("prepare")
    world.run("train")
    accepted = eventually(lambda: world.status().get("snapshot"), "the snapshot")
    plan = world.items("configmaps", "-l", f"finetune.dev/job={world.name}")
    release.start_new()
    # All that the new version starts: an attempt that is tried again, and a stage.
    world.end("train", exit_code=1)
    retried = world.pod("train", attempt=1, seconds=60)
    world.end("train", attempt=1)
    export = world.pod("export")
    world.end("export")
    world.wait_for("Succeeded")
    assert {image(pod) for pod in (retried, export)} == {"1.0.0"}
    assert all(accepted["planSha256"] in pod["spec"]["containers"][0]["args"] for pod in (retried, export))
    assert world.status()["snapshot"] == accepted
    [before], [after] = (
        [c["data"] for c in found if "plan.json" in c["data"]]
        for found in (plan, world.items("configmaps", "-l", f"finetune.dev/job={world.name}"))
    )
    assert before == after

    second = World(world.plane, world.namespace, "second")
    second.apply(later="yes")
    assert image(second.pod("prepare")) == "2.0.0"
    assert second.status()["snapshot"]["planVersion"] == PLAN_VERSION + 1


def test_a_job_that_a_newer_version_accepted_waits_for_it_after_a_rollback(release: Release, world: World) -> None:
    release.start_new()
    world.apply(later="yes")
    world.end("prepare")
    running = world.run("train")
    release.start_old()
    stalled = eventually(lambda: world.condition("Ready"), "a condition")
    assert stalled["reason"] == "Training", "what runs was not left alone"
    world.end("train")
    stalled = world.wait_for("Stalled")
    assert (stalled["reason"], world.status()["stages"][1]["state"]) == ("PlanNewer", "Succeeded")
    assert f"plan version {PLAN_VERSION + 1}" in stalled["message"]
    assert not world.items("jobs", "-l", "finetune.dev/stage=export")
    assert world.pod("train")["metadata"]["uid"] == running["metadata"]["uid"]
    release.start_new()
    world.end("export")
    world.wait_for("Succeeded")
    assert world.condition("Stalled") == {}
