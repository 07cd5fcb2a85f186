"""The commands and the YAML on README's and docs' pages name things that exist."""

import re
import shlex
from collections.abc import Iterator
from copy import deepcopy
from itertools import pairwise
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from finetune_api.crd import render
from finetune_api.job import FineTuneJob
from finetune_operator import names
from tests.unit.chart.conftest import KUBERNETES_VERSION, run_helm, template

ROOT = Path(__file__).resolve().parents[3]
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
CHART = ROOT / "charts/finetune-operator"
TARGETS = set(re.findall(r"(?m)^([a-z0-9-]+):", (ROOT / "Makefile").read_text()))
SCHEMA = render()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
# Such as examples/guide.yaml. What follows `docker build` or `python` is a path, too.
TREE = re.compile(r"(charts|examples|hack|crds|operator|trainer-image|tests|benchmarks|requirements)(/[\w.*-]+)+")
LABELS = {value for name, value in vars(names).items() if name.endswith("_LABEL")}


def blocks(page: Path, *languages: str) -> list[str]:
    """Return the fenced blocks in these languages; "" is none."""
    found = re.findall(r"(?ms)^```(\w*)\n(.*?)^```", page.read_text())
    return [text for language, text in found if language in languages]


def commands() -> Iterator[tuple[str, list[str]]]:
    """Return the commands of the pages with their words; output, which looks like commands, begins otherwise."""
    for page in PAGES:
        for block in blocks(page, "sh", ""):
            joined = re.sub(r"\\\n\s*", " ", block)
            for line in joined.splitlines():
                for part in re.split(r" && |; do |\$\(", line.removeprefix("  eval ")):
                    if re.match(r"(kubectl|helm|docker|make|python|hack/[\w-]+) ", part):
                        # What was cut out of quotes has only one of them.
                        words = shlex.split(part.replace('"', "").rstrip(")"), comments=True)
                        yield f"{page.name}: {part}", words


COMMANDS = dict(commands())
assert len(COMMANDS) > 40


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_names_paths_and_targets_that_exist(command: str) -> None:
    words = COMMANDS[command]
    for word in words:
        for found in TREE.finditer(word):
            if "*" not in found[0] and not word.startswith(("registry.corp", "http")):
                assert (ROOT / found[0]).exists(), found[0]
    if words[0] == "make":
        assert {word for word in words[1:] if re.fullmatch("[a-z0-9-]+", word)} <= TARGETS


@pytest.mark.parametrize("command", [c for c, words in COMMANDS.items() if words[0] == "helm"])
def test_a_value_that_a_command_sets_is_one_of_the_chart(command: str) -> None:
    words = COMMANDS[command]
    schema = yaml.safe_load((CHART / "values.schema.json").read_text())
    for flag, value in pairwise(words):
        if flag == "--set":
            node = schema
            for member in value.partition("=")[0].split("."):
                node = node["properties"][member]


@pytest.mark.parametrize("command", [c for c, words in COMMANDS.items() if words[0] == "kubectl"])
def test_a_command_names_labels_and_fields_that_exist(command: str) -> None:
    for label in re.findall(r"finetune\.dev/[\w-]+", command):
        assert label in LABELS
    for path in re.findall(r"jsonpath=\W*\{\.([\w.]+)\}", command):
        if path.startswith(("status.", "spec.")):
            assert_is_field(path)
    for patch in re.findall(r"-p '(\{.*\})'", command):
        for member in yaml.safe_load(patch)["spec"]:
            assert_is_field(f"spec.{member}")


# Those with variables are run, with all before them, by test_first_job_page.
RENDERED = [c for c, words in COMMANDS.items() if "charts/finetune-operator" in words and "$" not in c]


@pytest.mark.parametrize("command", RENDERED)
def test_helm_renders_what_a_command_installs(command: str) -> None:
    words = COMMANDS[command]
    flags = [w for w in words[2:] if w not in ("--wait", "--create-namespace", "--reset-then-reuse-values")]
    version = [] if "--kube-version" in flags else ["--kube-version", KUBERNETES_VERSION]
    done = run_helm("template", *[str(CHART) if "charts/" in w else w for w in flags], *version)
    assert done.returncode == 0, done.stderr


def test_the_values_of_the_air_gapped_page_fit_the_chart(tmp_path: Path) -> None:
    [values] = [text for text in blocks(ROOT / "docs/install-air-gapped.md", "yaml") if "values-corp" in text]
    (tmp_path / "values.yaml").write_text(values)
    done = template("-f", str(tmp_path / "values.yaml"))
    assert done.returncode == 0, done.stderr


def assert_is_field(path: str) -> None:
    node = SCHEMA
    for member in path.split("."):
        node = node["properties"][member]


def documents() -> Iterator[tuple[str, dict[str, Any]]]:
    """Return FineTuneJobs of the pages; a part of one is completed from examples/smallest.yaml."""
    for page in PAGES:
        for index, block in enumerate(blocks(page, "yaml")):
            for content in yaml.safe_load_all(block):
                part = content if "kind" in content or "spec" in content else {"spec": content}
                if part.get("kind", "FineTuneJob") == "FineTuneJob" and _is_of_a_job(part):
                    yield f"{page.name} {index}", part


def objects() -> Iterator[tuple[str, dict[str, Any]]]:
    """Return the objects of Kubernetes itself on the pages."""
    for page in PAGES:
        for index, block in enumerate(blocks(page, "yaml")):
            for content in yaml.safe_load_all(block):
                if "k8s.io" in content.get("apiVersion", "") and "kueue" not in content["apiVersion"]:
                    yield f"{page.name} {index}", content


OBJECTS = dict(objects())


@pytest.mark.parametrize("where", OBJECTS)
def test_yaml_of_another_object_fits_the_schema_of_kubernetes(where: str) -> None:
    kubernetes_validate.validate(OBJECTS[where], KUBERNETES_VERSION, strict=True)


def _is_of_a_job(part: dict[str, Any]) -> bool:
    return set(part["spec"]) <= set(SCHEMA["properties"]["spec"]["properties"])


DOCUMENTS = dict(documents())
assert len(DOCUMENTS) > 5


@pytest.mark.parametrize("where", DOCUMENTS)
def test_yaml_of_a_job_is_accepted(where: str) -> None:
    part = deepcopy(DOCUMENTS[where])
    job = yaml.safe_load((ROOT / "examples/smallest.yaml").read_text())
    job["metadata"] |= {"namespace": "default", "uid": "0"} | part.get("metadata", {})
    job["spec"] = {**job["spec"], **part["spec"]}
    FineTuneJob.model_validate(job)
