"""What a pod mounts. Secrets and CA bundles follow the plan's paths, so that they fit whatever was accepted."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from finetune_api.plan import CA_MOUNT, MODEL_MOUNT, PLAN_PATH, SECRETS_MOUNT, S3Target, dataset_mount
from finetune_api.progress import TOKEN_AUDIENCE
from finetune_operator import names
from finetune_operator.stages.attempt import Attempt

SCRATCH = "/scratch"
PROGRESS_TOKEN = "/var/run/finetune/progress/token"
PROGRESS_CA = "/var/run/finetune/progress-ca/ca.crt"
_TOKEN_SECONDS = 3600
# Readable for the container's user, whose group is 0, and for fsGroup where that is set.
_SECRET_MODE = 0o440


@dataclass(frozen=True)
class Mount:
    """A volume, by its source, at a path."""

    source: dict[str, Any]
    path: str
    read_only: bool = True


def working(attempt: Attempt) -> list[Mount]:
    """What every pod writes to: the root file system is read-only."""
    scratch = attempt.spec.compute.scratch
    return [
        Mount({"emptyDir": {"sizeLimit": scratch.size} if scratch else {}}, SCRATCH, read_only=False),
        Mount({"emptyDir": {"medium": "Memory"}}, "/dev/shm", read_only=False),  # noqa: S108 - the pod's own
        Mount({"emptyDir": {}}, "/tmp", read_only=False),  # noqa: S108 - the pod's own
    ]


def contract(attempt: Attempt) -> list[Mount]:
    """The plan, and what the progress push needs."""
    token = {"serviceAccountToken": {"path": "token", "audience": TOKEN_AUDIENCE, "expirationSeconds": _TOKEN_SECONDS}}
    return [
        Mount({"configMap": {"name": names.plan(attempt.metadata)}}, str(PurePosixPath(PLAN_PATH).parent)),
        Mount({"projected": {"sources": [token]}}, str(PurePosixPath(PROGRESS_TOKEN).parent)),
        Mount(
            # The pod starts without it rather than not at all: training never waits for its progress to be seen.
            {"configMap": {"name": names.ca(attempt.metadata), "optional": True}},
            str(PurePosixPath(PROGRESS_CA).parent),
        ),
    ]


def model(attempt: Attempt) -> list[Mount]:
    """The volume that holds the model, if one does."""
    claim = attempt.spec.model.persistent_volume_claim
    return [_claim(claim.claim_name, MODEL_MOUNT)] if claim else []


def dataset(attempt: Attempt) -> list[Mount]:
    """The ConfigMaps and volumes of the dataset's sources."""
    mounts: list[Mount] = []
    for index, source in enumerate(attempt.spec.dataset.sources):
        if source.config_map:
            items = [{"key": source.config_map.key, "path": source.config_map.key}]
            config_map = {"configMap": {"name": source.config_map.name, "items": items}}
            mounts.append(Mount(config_map, dataset_mount(index)))
        elif source.persistent_volume_claim:
            mounts.append(_claim(source.persistent_volume_claim.claim_name, dataset_mount(index)))
    return mounts


def connections(targets: Iterable[S3Target | None], hub_token_file: str | None) -> list[Mount]:
    """The Secrets and CA bundles of S3 locations, and the one key of a hub token."""
    whole: set[str] = set()
    bundles: dict[str, set[str]] = {}
    for target in targets:
        if target and target.credentials_dir:
            whole.add(PurePosixPath(target.credentials_dir).name)
        if target and target.ca_file:
            name, key = PurePosixPath(target.ca_file).parts[-2:]
            bundles.setdefault(name, set()).add(key)
    mounts = [_secret(name, None) for name in sorted(whole)]
    if hub_token_file:
        name, key = PurePosixPath(hub_token_file).parts[-2:]
        if name not in whole:
            mounts.append(_secret(name, key))
    for name, keys in sorted(bundles.items()):
        items = [{"key": key, "path": key} for key in sorted(keys)]
        mounts.append(Mount({"configMap": {"name": name, "items": items}}, f"{CA_MOUNT}/{name}"))
    return mounts


def render(mounts: Iterable[Mount]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the pod's `volumes` and the container's `volumeMounts`.

    A claim that is mounted at several paths becomes one volume: kubelets wait for ever for a claim that a pod names
    twice.
    """
    volumes: list[dict[str, Any]] = []
    volume_mounts: list[dict[str, Any]] = []
    for mount in mounts:
        claim = mount.source.get("persistentVolumeClaim")
        volume = next((v for v in volumes if claim and v.get("persistentVolumeClaim") == claim), None)
        if volume is None:
            volume = {"name": f"volume-{len(volumes)}", **mount.source}
            volumes.append(volume)
        volume_mount = {"name": volume["name"], "mountPath": mount.path}
        volume_mounts.append(volume_mount | ({"readOnly": True} if mount.read_only else {}))
    return volumes, volume_mounts


def _claim(name: str, path: str) -> Mount:
    # Read-only as a mount, not as a volume: a driver may be unable to attach one claim in two modes on one node.
    return Mount({"persistentVolumeClaim": {"claimName": name}}, path)


def _secret(name: str, key: str | None) -> Mount:
    secret: dict[str, Any] = {"secretName": name, "defaultMode": _SECRET_MODE}
    if key:
        secret["items"] = [{"key": key, "path": key}]
    return Mount({"secret": secret}, f"{SECRETS_MOUNT}/{name}")
