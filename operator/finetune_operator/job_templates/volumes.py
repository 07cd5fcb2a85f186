"""The volumes of a pod. Secrets and CA bundles follow the paths in the plan, so that they fit what was accepted."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from finetune_api.plan import (
    CA_MOUNT,
    MODEL_MOUNT,
    PLAN_PATH,
    SECRETS_MOUNT,
    TEMPLATE_MOUNT,
    S3Target,
    dataset_mount,
)
from finetune_api.progress import TOKEN_AUDIENCE
from finetune_operator import names
from finetune_operator.job_templates.attempt import Attempt

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
    """Return the mounts that pods write to, as the root file system is read-only."""
    scratch = attempt.spec.compute.scratch
    return [
        Mount({"emptyDir": {"sizeLimit": scratch.size} if scratch else {}}, SCRATCH, read_only=False),
        Mount({"emptyDir": {"medium": "Memory"}}, "/dev/shm", read_only=False),  # noqa: S108 - the pod's own
        Mount({"emptyDir": {}}, "/tmp", read_only=False),  # noqa: S108 - the pod's own
    ]


def contract(attempt: Attempt) -> list[Mount]:
    """Return the mounts of the plan, and of what the progress push needs."""
    token = {"serviceAccountToken": {"path": "token", "audience": TOKEN_AUDIENCE, "expirationSeconds": _TOKEN_SECONDS}}
    plan = names.plan(attempt.metadata, attempt.snapshot.plan_sha256)
    return [
        Mount({"configMap": {"name": plan}}, str(PurePosixPath(PLAN_PATH).parent)),
        Mount({"projected": {"sources": [token]}}, str(PurePosixPath(PROGRESS_TOKEN).parent)),
        Mount(
            # Optional: training never waits until its progress can be pushed.
            {"configMap": {"name": names.ca(attempt.metadata), "optional": True}},
            str(PurePosixPath(PROGRESS_CA).parent),
        ),
    ]


def model(attempt: Attempt) -> list[Mount]:
    """The volume that holds the model, if one does."""
    claim = attempt.spec.model.persistent_volume_claim
    return [_claim(claim.claim_name, MODEL_MOUNT)] if claim else []


def hub_token(attempt: Attempt) -> str | None:
    """The file of the model's hub token, if it has one."""
    hub = attempt.plan.model.hub
    return hub.token_file if hub else None


def original_token(attempt: Attempt) -> str | None:
    """The file of the hub token of the original weights, if they have one."""
    weights = attempt.plan.export.original
    return weights.hub.token_file if weights and weights.hub else None


def original(attempt: Attempt) -> S3Target | None:
    """The location of the original weights of a 4-bit repository, if they are in a bucket."""
    weights = attempt.plan.export.original
    return weights.s3 if weights else None


def adapter(attempt: Attempt) -> S3Target | None:
    """The location of an earlier adapter, if the job has one with its own location."""
    earlier = attempt.plan.model.adapter
    return earlier.s3 if earlier else None


def template(attempt: Attempt) -> list[Mount]:
    """The mount of the job's own chat template, if it has one."""
    reference = attempt.spec.dataset.template_ref
    return [_config_map(reference.name, [reference.key], TEMPLATE_MOUNT)] if reference else []


def dataset(attempt: Attempt) -> list[Mount]:
    """The mounts of the dataset's sources, then of the sources of hold-out rows."""
    spec = attempt.spec.dataset
    mounts: list[Mount] = []
    for index, source in enumerate([*spec.sources, *(spec.holdout.sources or [])]):
        if source.config_map:
            mounts.append(_config_map(source.config_map.name, [source.config_map.key], dataset_mount(index)))
        elif source.persistent_volume_claim:
            mounts.append(_claim(source.persistent_volume_claim.claim_name, dataset_mount(index)))
    return mounts


def connections(
    targets: Iterable[S3Target | None], *, tokens: Iterable[str | None] = (), secrets: Iterable[str | None] = ()
) -> list[Mount]:
    """Return the mounts of credentials and CA bundles, by the paths in the plan.

    Args:
        targets: S3 locations: all keys of their Secrets, and their CA bundles.
        tokens: files of hub tokens: the one key of each.
        secrets: folders of other Secrets: all keys.
    """
    found = [target for target in targets if target]
    folders = [*(target.credentials_dir for target in found), *secrets]
    whole = {PurePosixPath(folder).name for folder in folders if folder}
    keys = {name: keys for name, keys in _keys(tokens).items() if name not in whole}
    return [
        *(_secret(name, None) for name in sorted(whole)),
        *(_secret(name, some) for name, some in sorted(keys.items())),
        *(
            _config_map(name, sorted(bundle), f"{CA_MOUNT}/{name}")
            for name, bundle in sorted(_keys(target.ca_file for target in found).items())
        ),
    ]


def _keys(paths: Iterable[str | None]) -> dict[str, set[str]]:
    """The keys by object, of paths that end in <object>/<key>."""
    found: dict[str, set[str]] = {}
    for path in paths:
        if path:
            name, key = PurePosixPath(path).parts[-2:]
            found.setdefault(name, set()).add(key)
    return found


def render(mounts: Iterable[Mount]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the pod's `volumes` and the container's `volumeMounts`.

    A claim that is mounted at several paths becomes one volume: a kubelet waits forever for a claim that a pod has in
    two volumes.
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


def _config_map(name: str, keys: Iterable[str], path: str) -> Mount:
    return Mount({"configMap": {"name": name, "items": _items(keys)}}, path)


def _secret(name: str, keys: Iterable[str] | None) -> Mount:
    secret: dict[str, Any] = {"secretName": name, "defaultMode": _SECRET_MODE}
    if keys:
        secret["items"] = _items(sorted(keys))
    return Mount({"secret": secret}, f"{SECRETS_MOUNT}/{name}")


def _items(keys: Iterable[str]) -> list[dict[str, str]]:
    return [{"key": key, "path": key} for key in keys]
