"""The rules that a structural schema must keep, checked on the whole CRD."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from pydantic import Field

from finetune_api import crd
from finetune_api.base import Model
from finetune_api.job import FineTuneJob
from finetune_api.spec import FineTuneJobSpec

ROOT = Path(__file__).resolve().parents[3]
# JSONSchemaProps of apiextensions v1, as far as we use it.
KNOWN = {
    *("type", "format", "description", "enum", "pattern", "default", "properties", "required", "items"),
    *("minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"),
    *("additionalProperties", "x-kubernetes-validations", "x-kubernetes-int-or-string"),
    *("x-kubernetes-list-type", "x-kubernetes-list-map-keys"),
}
Node = dict[str, Any]


def schema() -> Node:
    found: Node = crd.render()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return found


def nodes(node: Node, path: str = "") -> Iterator[tuple[str, Node]]:
    yield path, node
    for name, child in node.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    for member in ("items", "additionalProperties"):
        if member in node:
            yield from nodes(node[member], f"{path}.{member}")


ALL = dict(nodes(schema()))
OURS = {path: node for path, node in ALL.items() if path.startswith((".spec", ".status"))}


def test_every_keyword_is_one_that_kubernetes_knows() -> None:
    assert {path: set(node) - KNOWN for path, node in ALL.items() if set(node) - KNOWN} == {}


def test_only_the_status_has_a_default() -> None:
    assert {path: node["default"] for path, node in ALL.items() if "default" in node} == {
        ".status": {"observedGeneration": -1}
    }


def test_every_node_has_a_type() -> None:
    typed = ("type", "x-kubernetes-int-or-string")
    assert [path for path, node in ALL.items() if not any(key in node for key in typed)] == []


@pytest.mark.parametrize(
    ("kind", "bound"), [("string", "maxLength"), ("array", "maxItems"), ("object", "maxProperties")]
)
def test_everything_that_could_grow_has_a_bound(kind: str, bound: str) -> None:
    unbounded = [
        path
        for path, node in OURS.items()
        if node.get("type") == kind and not {bound, "enum", "properties"} & set(node)
    ]
    assert unbounded == []


def test_no_number_is_a_float() -> None:
    assert [path for path, node in OURS.items() if node.get("type") == "number"] == []


def test_every_rule_has_a_message_of_one_line() -> None:
    for path, node in ALL.items():
        for rule in node.get("x-kubernetes-validations", []):
            assert rule["message"], path
            assert "\n" not in rule["message"], path


def test_every_pattern_of_the_spec_has_words_for_it() -> None:
    assert [path for path, node in OURS.items() if path.startswith(".spec") and "pattern" in node] == []


def test_no_text_speaks_in_patterns() -> None:
    for path, node in ALL.items():
        for rule in node.get("x-kubernetes-validations", []):
            assert "[a-z" not in rule["message"], path


def test_a_list_of_objects_with_a_key_is_merged_by_it() -> None:
    keys = {
        path: node["x-kubernetes-list-map-keys"] for path, node in ALL.items() if "x-kubernetes-list-map-keys" in node
    }
    assert keys == {".status.conditions": ["type"], ".status.stages": ["name"], ".status.artifacts": ["name"]}


def test_the_smallest_job_needs_three_members() -> None:
    assert ALL[".spec"]["required"] == ["model", "dataset", "output"]


def test_a_default_is_reported_in_the_description() -> None:
    assert ALL[".spec.training.batchSize"]["description"] == "Examples per optimizer step. Default: 8."


def test_a_switch_that_is_off_says_false() -> None:
    assert ALL[".spec.training.lora.useRSLoRA"]["description"].endswith("Default: false.")


def test_the_generated_files_are_up_to_date() -> None:
    for path in ("crds/finetune.dev_finetunejobs.yaml", "charts/finetune-operator/files/crd.yaml"):
        assert yaml.safe_load((ROOT / path).read_text()) == crd.render(), path


def test_the_crd_stays_below_the_limit_of_client_side_apply() -> None:
    assert (ROOT / "crds/finetune.dev_finetunejobs.yaml").stat().st_size < 256 * 1024


def transformed(model: type[Model]) -> Node:
    raw = model.model_json_schema(by_alias=True)
    return crd.structural(raw, raw.get("$defs", {}))


def test_an_optional_member_is_one_that_may_be_left_out() -> None:
    class Example(Model):
        size: int | None = Field(None, ge=1)

    assert transformed(Example) == {"type": "object", "properties": {"size": {"type": "integer", "minimum": 1}}}


def test_one_allowed_value_is_an_enum() -> None:
    class Example(Model):
        kind: Literal["One"]

    assert transformed(Example)["properties"]["kind"] == {"type": "string", "enum": ["One"]}


def test_a_union_of_types_is_refused() -> None:
    class Example(Model):
        either: int | str

    with pytest.raises(ValueError, match="no structural form"):
        transformed(Example)


def test_a_nested_model_is_written_out() -> None:
    class Inner(Model):
        """Inside."""

        a: int

    class Example(Model):
        inner: Inner

    inner = {"type": "object", "description": "Inside.", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    assert transformed(Example)["properties"]["inner"] == inner


@pytest.mark.parametrize("value", [4, "4", 1.5])
def test_a_quantity_may_be_a_number(value: object) -> None:
    spec = FineTuneJobSpec.model_validate(
        {
            "model": {"s3": {"uri": "s3://models/"}},
            "dataset": {"sources": [{"s3": {"uri": "s3://data/a.jsonl"}}]},
            "output": {"s3": {"uri": "s3://results/"}},
            "compute": {"resources": {"train": {"limits": {"cpu": value}}}},
        }
    )
    assert spec.compute.resources.train is not None
    assert spec.compute.resources.train.limits == {"cpu": str(value)}


def test_a_job_without_status_is_one_that_nobody_has_seen() -> None:
    job = FineTuneJob.model_validate(
        {
            "metadata": {"name": "a", "namespace": "b", "uid": "c"},
            "spec": {
                "model": {"s3": {"uri": "s3://models/"}},
                "dataset": {"sources": [{"s3": {"uri": "s3://data/a.jsonl"}}]},
                "output": {"s3": {"uri": "s3://results/"}},
            },
        }
    )
    assert job.status.observed_generation == -1
