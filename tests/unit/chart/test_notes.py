"""What Helm prints after an installation."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from finetune_api.endpoints import AWS, HUB, Endpoint, refused
from finetune_api.policy import Policy
from tests.unit.chart.conftest import CHART, template

WARNING = "WARNING: policy.endpoints does not list these servers, so jobs that take them by default are refused:"
S3 = "s3.endpoint=https://minio.corp:9000"
PLAIN_S3 = "s3.endpoint=http://10.1.2.3"
MIRROR = "huggingFace.endpoint=https://hub.corp"

Notes = Callable[..., str]


@pytest.fixture
def notes(tmp_path: Path) -> Notes:
    """A function from values to the notes. Helm renders these for a cluster only, so here they are in a ConfigMap."""
    chart = shutil.copytree(CHART, tmp_path / "chart")
    (chart / "templates/NOTES.txt").rename(chart / "files/NOTES.txt")
    (chart / "templates/notes.yaml").write_text(
        'kind: ConfigMap\ndata:\n  notes: {{ tpl (.Files.Get "files/NOTES.txt") . | toJson }}\n'
    )

    def rendered(*values: str) -> str:
        chosen = [argument for value in values for argument in ("--set", value)]
        done = template(*chosen, "--show-only", "templates/notes.yaml", chart=chart)
        assert done.returncode == 0, done.stderr
        found: str = yaml.safe_load(done.stdout)["data"]["notes"]
        return found

    return rendered


# Values, and the servers that the notes warn of.
POLICIES: dict[str, tuple[tuple[str, ...], list[str]]] = {
    "no policy": ((S3,), []),
    "both listed": ((S3, "policy.endpoints={minio.corp,huggingface.co}"), []),
    "S3 without the hub": (
        (S3, "policy.endpoints={minio.corp}"),
        ["huggingface.co (huggingFace.endpoint left out)"],
    ),
    "a domain and its port": ((S3, MIRROR, "policy.endpoints={*.corp:9000,hub.corp:443}"), []),
    "a domain itself": ((S3, MIRROR, "policy.endpoints={*.minio.corp,*.hub.corp}"), []),
    "the end of another name": (
        (S3, MIRROR, "policy.endpoints={*.o.corp,hub.corp}"),
        ["minio.corp (s3.endpoint)"],
    ),
    "another port": ((S3, MIRROR, "policy.endpoints={minio.corp:9001,hub.corp}"), ["minio.corp (s3.endpoint)"]),
    "capitals": (("s3.endpoint=https://MinIO.corp", MIRROR, "policy.endpoints={MINIO.CORP,hub.corp}"), []),
    "port of http": ((PLAIN_S3, MIRROR, "policy.endpoints={10.1.2.3:80,hub.corp}"), []),
    "nothing set, another server listed": (
        ("policy.endpoints={minio.corp}",),
        ["amazonaws.com (s3.endpoint left out)", "huggingface.co (huggingFace.endpoint left out)"],
    ),
    "an address range": (
        (S3, MIRROR, "policy.endpoints={hub.corp,10.0.0.0/8}"),
        ["minio.corp (s3.endpoint), unless its address is in one of the ranges"],
    ),
}


@pytest.mark.parametrize("case", POLICIES)
def test_a_default_server_that_the_policy_leaves_out_is_named(notes: Notes, case: str) -> None:
    values, expected = POLICIES[case]
    _, warning, rest = notes(*values).partition(WARNING)
    assert bool(warning) is bool(expected)
    assert [line.strip() for line in rest.split("Add them")[0].splitlines() if warning and line.strip()] == expected


@pytest.mark.parametrize("case", [name for name in POLICIES if "range" not in name and name != "no policy"])
def test_the_operator_agrees(case: str) -> None:
    values, expected = POLICIES[case]
    given = dict(value.split("=", 1) for value in values)
    policy = Policy(endpoints=given["policy.endpoints"].strip("{}").split(","))
    for field, default in (("s3.endpoint", AWS), ("huggingFace.endpoint", HUB)):
        warned = any(field in line for line in expected)
        assert (refused(policy, [Endpoint(field, given.get(field, default))]) is not None) is warned
