"""Wrong values are refused with a message that names them."""

import pytest

from tests.unit.chart.conftest import template

WRONG: dict[str, tuple[tuple[str, ...], str]] = {
    "unknown value": (("--set", "replicaCount=2"), "additional properties 'replicaCount' not allowed"),
    "misspelt S3 member": (("--set", "s3.endpont=x"), "at '/s3': additional properties 'endpont' not allowed"),
    "endpoint without scheme": (
        ("--set", "s3.endpoint=minio.corp"),
        r"at '/s3/endpoint': 'minio.corp' does not match pattern '^https?://[^/\\s@]+$'",
    ),
    "word for a number": (("--set", "workers=many"), "at '/workers': got string, want integer"),
    "no workers": (("--set", "workers=0"), "at '/workers': minimum: got 0, want 1"),
    "no replicas": (("--set", "replicas=0"), "at '/replicas': minimum: got 0, want 1"),
    "word for a switch": (
        ("--set-string", "trainer.allowCPU=true"),
        "at '/trainer/allowCPU': got string, want boolean",
    ),
    "one namespace without a list": (
        ("--set", "watchNamespaces=research"),
        "at '/watchNamespaces': got string, want array",
    ),
    "half a digest": (("--set", "image.digest=sha256:12"), "at '/image/digest': 'sha256:12' does not match pattern"),
    "endpoint as URL": (
        ("--set", "policy.endpoints={https://minio.corp}"),
        "at '/policy/endpoints/0': 'https://minio.corp' does not match pattern",
    ),
    "endpoint without a list": (
        ("--set", "policy.endpoints=minio.corp"),
        "at '/policy/endpoints': got string, want array",
    ),
    "registry as URL": (
        ("--set", "image.registry=https://registry.corp:5000"),
        "image.registry is https://registry.corp:5000, a URL; write it as in an image's name, without the scheme: "
        "registry.corp:5000",
    ),
    "registry of the trainer as URL": (
        ("--set", "trainer.image.registry=oci://registry.corp/ai"),
        "trainer.image.registry is oci://registry.corp/ai, a URL; write it as in an image's name, without the scheme: "
        "registry.corp/ai",
    ),
    "unknown log level": (
        ("--set", "logLevel=loud"),
        "at '/logLevel': value must be one of 'DEBUG', 'INFO', 'WARNING', 'ERROR'",
    ),
    "CA without key": (
        ("--set", "s3.caBundle.configMap.name=ca"),
        "at '/s3/caBundle/configMap': missing property 'key'",
    ),
    "account neither made nor named": (
        ("--set", "serviceAccount.create=false"),
        "serviceAccount.name must name an existing ServiceAccount when serviceAccount.create is false",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_value_is_refused_by_name(case: str) -> None:
    arguments, sentence = WRONG[case]
    done = template(*arguments)
    assert done.returncode == 1
    assert sentence in done.stderr
