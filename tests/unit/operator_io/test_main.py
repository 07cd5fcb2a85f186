import tomllib
from pathlib import Path
from typing import Any

import pytest

import finetune_operator
from finetune_operator import main
from finetune_operator.errors import Unreachable
from finetune_operator.kube import FINETUNE_JOBS
from finetune_operator.main import Operator, insist
from finetune_operator.settings import parse
from tests.unit.operator_io.fakes import FakeKube

FINISHED = {"conditions": [{"type": "Finished", "status": "True"}]}


def _operator(kube: FakeKube, *arguments: str) -> Operator:
    pod = {"POD_NAMESPACE": "sys", "POD_NAME": "operator-0"}
    return Operator(parse(["--trainer-image", "trainer:1", *arguments], pod), kube)


def _put(kube: FakeKube, name: str, namespace: str = "team", **members: Any) -> None:
    kube.put(FINETUNE_JOBS, {"metadata": {"namespace": namespace, "name": name}, **members})


async def _due(operator: Operator) -> int:
    before = len(operator._jobs)
    await operator._full_list()
    return len(operator._jobs) - before


async def test_every_job_is_due_after_the_first_full_list() -> None:
    kube = FakeKube()
    _put(kube, "a")
    _put(kube, "b", status=FINISHED)
    assert await _due(_operator(kube)) == 2


async def test_a_later_full_list_leaves_finished_jobs_alone() -> None:
    kube = FakeKube()
    _put(kube, "b", status=FINISHED)
    operator = _operator(kube)
    operator._metrics.phase(("team", "b"), "Succeeded")
    assert await _due(operator) == 0


async def test_a_job_whose_deletion_no_watch_told_of_is_due() -> None:
    operator = _operator(FakeKube())
    operator._metrics.phase(("team", "gone"), "Training")
    assert await _due(operator) == 1


async def test_only_jobs_of_the_watched_namespaces_are_listed() -> None:
    kube = FakeKube()
    for namespace in ("team", "other", "third"):
        _put(kube, "a", namespace)
    assert await _due(_operator(kube, "--watch-namespace", "team", "--watch-namespace", "third")) == 2


async def test_an_outage_at_the_start_is_waited_out(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[Exception | str] = [Unreachable("down"), Unreachable("down"), "done"]

    async def attempt() -> str:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(main, "backoff_seconds", lambda failures: 0.001)
    assert await insist("start", attempt) == "done"


def test_the_version_is_the_distribution_s() -> None:
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    assert finetune_operator.__version__ == project["version"]
