"""A plan for a run without a cluster: paths in place of what only a cluster has."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune_trainer.commands.plan import local_plan
from finetune_trainer.errors import SettingsError
from tests.support.trainer_job import JOB


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def written(**sections: dict[str, Any]) -> Path:
        job = copy.deepcopy(JOB)
        for name, members in sections.items():
            job["spec"].setdefault(name, {}).update(members)
        path = tmp_path / "job.yaml"
        path.write_text(yaml.safe_dump(job))
        return path

    return written


def test_adapter_of_a_folder(write: Callable[..., Path], tmp_path: Path) -> None:
    plan = local_plan(write(model={"adapter": {"fineTuneJobRef": {"name": "first"}}}), adapter=tmp_path)
    assert plan.model.adapter is not None
    assert (plan.model.adapter.path, plan.model.adapter.job) == (str(tmp_path), None)


def test_adapter_of_the_job_stays(write: Callable[..., Path]) -> None:
    plan = local_plan(write(model={"adapter": {"s3": {"uri": "s3://models/earlier"}}}))
    assert plan.model.adapter is not None
    assert plan.model.adapter.s3 is not None
    assert plan.model.adapter.s3.uri == "s3://models/earlier"


def test_sources_on_the_web_and_on_a_hub_stay_without_their_mounts(write: Callable[..., Path]) -> None:
    token = {"name": "hf", "key": "token"}
    sources = [
        {"http": {"url": "https://example.com/a.jsonl", "sha256": "a" * 64}},
        {"huggingFace": {"repository": "org/coach", "path": "a.jsonl", "tokenSecretRef": token}},
    ]
    first, second = local_plan(write(dataset={"sources": sources})).dataset.sources
    assert first.url == "https://example.com/a.jsonl"
    assert second.hub is not None
    assert (second.hub.path, second.hub.token_file) == ("a.jsonl", None)


def test_file_takes_the_place_of_any_source(write: Callable[..., Path], tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text("")
    source = {"huggingFace": {"repository": "org/coach", "path": "a.jsonl"}}
    (found,) = local_plan(write(dataset={"sources": [source]}), datasets=[file]).dataset.sources
    assert (found.hub, found.path) == (None, str(file))


def test_output_keeps_whether_it_may_be_reused(write: Callable[..., Path], tmp_path: Path) -> None:
    job = write(output={"s3": {"uri": "s3://models/tuned"}, "reuse": "Never"})
    assert local_plan(job, output=tmp_path).output.reuse == "Never"
    assert local_plan(write(output={"reuse": "Identical"}), output=tmp_path).output.reuse == "Identical"


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (
            {"sources": [{"configMap": {"name": "rows", "key": "a.jsonl"}}]},
            "a dataset source is a ConfigMap or a volume, which only a cluster has; pass its file as --dataset",
        ),
        (
            {"holdout": {"sources": [{"configMap": {"name": "rows", "key": "a.jsonl"}}]}},
            "a source of dataset.holdout is a ConfigMap or a volume, which only a cluster has; "
            "keep a percentage aside instead, or put the file on S3, the hub or a web server",
        ),
        (
            {"templateRef": {"name": "template", "key": "chat.jinja"}},
            "spec.dataset.templateRef is a ConfigMap, which only a cluster has; choose a promptTemplate instead",
        ),
    ],
)
def test_what_only_a_cluster_has(write: Callable[..., Path], members: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        local_plan(write(dataset=members))
    assert caught.value.message == message
