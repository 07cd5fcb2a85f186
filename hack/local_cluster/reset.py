"""Bringing a running cluster back to the state it had after ``up``."""

from __future__ import annotations

import shutil
from pathlib import Path

from . import api, node
from .layout import ClusterError
from .state import State
from .waiting import poll

_SYSTEM_NAMESPACES = {"default", "kube-system", "kube-public", "kube-node-lease"}
_JOBS = "/apis/finetune.dev/v1alpha1"
_DEFAULT_NAMESPACE_KINDS = {
    "/apis/batch/v1": ("jobs",),
    "/apis/apps/v1": ("deployments", "statefulsets"),
    "/api/v1": ("pods", "services", "configmaps", "secrets", "persistentvolumeclaims"),
}
_KEPT = {"kube-root-ca.crt", "kubernetes"}
_SECONDS = 120


def reset(state: State, *, keep: list[str]) -> None:
    """Deletes users' namespaces and objects, FineTuneJobs first, and empties all buckets.

    Namespaces in ``keep`` stay, with all but the FineTuneJobs in them. Definitions and
    roles of the cluster stay too: they belong to the installation. Raises ClusterError if
    something does not go away within two minutes.
    """
    _delete_jobs(state)
    path = "/api/v1/namespaces"
    doomed = [name for name in _names(state, path) if name not in _SYSTEM_NAMESPACES.union(keep)]
    for name in doomed:
        api.delete(state, f"{path}/{name}")
    if "default" not in keep:
        _empty_default_namespace(state)
    poll(
        f"deletion of namespaces {', '.join(doomed)}",
        lambda: ", ".join(set(_names(state, path)).intersection(doomed)) or None,
        seconds=_SECONDS,
    )
    if state.full:
        node.offer_volumes(state)
    _empty_buckets(state.layout.buckets)


def _delete_jobs(state: State) -> None:
    if api.find(state, f"{_JOBS}/finetunejobs") is None:
        return
    for job in api.get(state, f"{_JOBS}/finetunejobs")["items"]:
        meta = job["metadata"]
        api.delete(state, f"{_JOBS}/namespaces/{meta['namespace']}/finetunejobs/{meta['name']}")
    try:
        poll(
            "deletion of all FineTuneJobs",
            lambda: ", ".join(_names(state, f"{_JOBS}/finetunejobs")) or None,
            seconds=_SECONDS,
        )
    except ClusterError as error:
        raise ClusterError(f"{error}: does something hold them by a finalizer?") from error


def _empty_default_namespace(state: State) -> None:
    for group, kinds in _DEFAULT_NAMESPACE_KINDS.items():
        for kind in kinds:
            path = f"{group}/namespaces/default/{kind}"
            for name in _names(state, path):
                if name not in _KEPT:
                    api.delete(state, f"{path}/{name}?propagationPolicy=Background")


def _names(state: State, path: str) -> list[str]:
    return [item["metadata"]["name"] for item in api.get(state, path)["items"]]


def _empty_buckets(folder: Path) -> None:
    # The bucket's own folder carries its settings and stays.
    for bucket in folder.iterdir():
        if not bucket.is_dir():
            continue
        for entry in bucket.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
