"""A Kubernetes with the operator installed as a user would, an S3 server with a model and data in it.

Used by `make demo` and by the e2e tests. By default it is the local cluster of hack/cluster; with CLUSTER=current it
is the cluster that KUBECONFIG names, and the environment says where its registry and S3 server are.
"""

import base64
import importlib.util
import json
import os
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from local_platform import smollm2
from local_platform.chart import OPERATOR_NAMESPACE, RELEASE
from local_platform.commands import ROOT, PlatformError, Say, Step, run, side_by_side

CLUSTER = ROOT / "hack/cluster"
BUCKETS = ("models", "data", "results")
# Whether the trainer's libraries are in this environment; else its image has them.
_HAS_LIBRARIES = importlib.util.find_spec("torch") is not None
_NEEDED = ("KUBECONFIG", "S3_ENDPOINT", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "REGISTRY")

# Seconds for what follows the images: pushed, chart, model and data in the bucket.
_REST_SECONDS = 90.0


def step(say: Say, title: str, action: Callable[[], Any]) -> Any:
    """Do one step and say how long it took."""
    started = time.monotonic()
    result = action()
    say(f"  {title:<58} {time.monotonic() - started:6.1f} s")
    return result


@dataclass(frozen=True)
class Platform:
    """The ways to a running platform."""

    env: dict[str, str]

    def kubectl(self, *arguments: str, stdin: str | None = None, timeout: float = 120) -> str:
        """Run kubectl with the platform's KUBECONFIG."""
        return run("kubectl", *arguments, stdin=stdin, timeout=timeout, env=self.env)

    def get(self, *arguments: str) -> dict[str, Any]:
        """Return an object or a list as JSON."""
        result: dict[str, Any] = json.loads(self.kubectl("get", *arguments, "-o", "json"))
        return result

    def apply(self, *objects: dict[str, Any]) -> None:
        """Apply objects as a user would."""
        body = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.kubectl("apply", "-f", "-", stdin=json.dumps(body))

    def s3(self) -> Any:
        """Return a boto3 client for the S3 server."""
        import boto3
        from botocore.config import Config

        return boto3.client(
            "s3",
            endpoint_url=self.env["S3_ENDPOINT"],
            region_name="us-east-1",
            aws_access_key_id=self.env["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.env["AWS_SECRET_ACCESS_KEY"],
            config=Config(s3={"addressing_style": "path"}),
        )

    def objects(self, prefix: str, bucket: str = "results") -> dict[str, int]:
        """Return the keys below a prefix with their sizes."""
        pages = self.s3().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return {o["Key"]: o["Size"] for page in pages for o in page.get("Contents", [])}

    def read(self, key: str, bucket: str = "results") -> bytes:
        """Return one object's bytes."""
        data: bytes = self.s3().get_object(Bucket=bucket, Key=key)["Body"].read()
        return data

    def namespace(self, name: str) -> None:
        """Make a namespace with restricted pod security and the Secret `s3` in it."""
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        self.apply(
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}},
            secret("s3", name, self.env["AWS_ACCESS_KEY_ID"], self.env["AWS_SECRET_ACCESS_KEY"]),
        )

    def wait(self, what: str, condition: Callable[[], Any], seconds: float) -> Any:
        """Poll until the condition is truthy and return its value.

        Raises:
            PlatformError: it did not come true in time.
        """
        began = time.monotonic()
        while True:
            if value := condition():
                return value
            waited = time.monotonic() - began
            if waited > seconds:
                raise PlatformError(f"waited {seconds:.0f} s in vain for: {what}")
            # Each look costs a kubectl: the longer it takes, the less a moment matters.
            time.sleep(min(max(0.5, waited / 20), 2.0))

    def job(self, namespace: str, name: str) -> dict[str, Any]:
        """Return a FineTuneJob."""
        return self.get("finetunejob", name, "-n", namespace)


def secret(name: str, namespace: str, key_id: str, key: str) -> dict[str, Any]:
    """Return the S3 Secret of a namespace."""
    data = {"AWS_ACCESS_KEY_ID": key_id, "AWS_SECRET_ACCESS_KEY": key}
    encoded = {k: base64.b64encode(v.encode()).decode() for k, v in data.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": namespace}, "data": encoded}


def is_external() -> bool:
    """Say whether the cluster is the one that KUBECONFIG names, not our own."""
    return os.environ.get("CLUSTER") == "current"


def bring_up(say: Say, after_seconds: float = 0.0) -> Platform:
    """Start what is not running, install what is not installed, upload what is not there.

    `after_seconds` is what the caller does then, for the estimate of the time left.

    Raises:
        PlatformError: a step failed.
    """
    external = is_external()
    if external:
        platform = _current()
    # Go keeps all CPUs busy; the images wait for the network and the disk half of their time.
    rows = [_images()] if external else [_cluster(), _images()]
    side_by_side(say, rows, after_seconds + _REST_SECONDS)
    if not external:
        platform = _local()
    images = {which: _image_pushed(say, platform, which) for which in ("operator", "trainer")}
    step(say, "chart installed", lambda: _install(platform, images))
    step(say, "model and data in the bucket", lambda: _seed(platform))
    return platform


def _cluster() -> list[Step]:
    return [
        Step("programs of the cluster built", 600, (CLUSTER, "build")),
        Step("cluster up", 10, (CLUSTER, "up")),
    ]


def _images() -> list[Step]:
    steps = [
        Step("base image made", 90, ("hack/base-image",)),
        Step("operator image built", 25, ("hack/build-image", "operator")),
        Step("llama.cpp built", 460, ("hack/llama-cpp", "wheel")),
        Step("trainer image built", 330, ("hack/build-image", "trainer")),
    ]
    if not _HAS_LIBRARIES:
        module = ("env", f"PYTHONPATH={ROOT / 'hack'}", sys.executable, "-m", "local_platform.trainer_image")
        steps.append(Step("model made", 25, module))
    return steps


def _image_pushed(say: Say, platform: Platform, which: str) -> str:
    def push() -> str:
        return run("hack/build-image", which, "--push", platform.env["REGISTRY"], timeout=3600).split()[-1]

    reference: str = step(say, f"{which} image pushed", push)
    return reference


def _local() -> Platform:
    env = {}
    for line in run(CLUSTER, "env").splitlines():
        if line.startswith("export "):
            key, _, value = line.removeprefix("export ").partition("=")
            env[key] = os.path.expandvars(shlex.split(value)[0]) if value else ""
    os.environ["PATH"] = env.get("PATH", os.environ["PATH"])
    return Platform(env)


def _current() -> Platform:
    missing = [name for name in _NEEDED if not os.environ.get(name)]
    if missing:
        raise PlatformError(f"CLUSTER=current needs these environment variables too: {', '.join(missing)}")
    return Platform({name: os.environ[name] for name in _NEEDED})


def _install(platform: Platform, images: dict[str, str]) -> None:
    values = {
        "image": _image(images["operator"]),
        "trainer": {"image": _image(images["trainer"]), "allowCPU": True},
        "s3": {"endpoint": platform.env["S3_ENDPOINT"], "region": "us-east-1", "forcePathStyle": True},
    }
    run(
        "helm", "upgrade", "--install", RELEASE, "charts/finetune-operator",
        "--namespace", OPERATOR_NAMESPACE, "--create-namespace",
        "--values", "-", "--wait", "--timeout", "5m",
        stdin=json.dumps(values), env=platform.env,
    )  # fmt: skip


def _image(reference: str) -> dict[str, str]:
    registry, _, rest = reference.partition("/")
    repository, _, tag = rest.rpartition(":")
    return {"registry": registry, "repository": repository, "tag": tag}


def _seed(platform: Platform) -> None:
    s3 = platform.s3()
    for bucket in BUCKETS:
        if bucket not in {b["Name"] for b in s3.list_buckets()["Buckets"]}:
            s3.create_bucket(Bucket=bucket)
    folder = smollm2.model_dir() if _HAS_LIBRARIES else smollm2.folder()
    there = platform.objects(f"{smollm2.NAME}/", "models")
    for path in sorted(folder.iterdir()):
        key = f"{smollm2.NAME}/{path.name}"
        if path.is_file() and there.get(key) != path.stat().st_size:
            s3.upload_file(str(path), "models", key)
    s3.upload_file(str(ROOT / "examples/coach.jsonl"), "data", "coach.jsonl")
