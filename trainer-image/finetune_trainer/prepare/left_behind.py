"""Deletes from the bucket what jobs of this namespace left behind that are deleted, or failed long ago.

Only the state folders `.runs/<uid>` are looked at: results of runs are never deleted. Each has a marker with the id of
its cluster, because other clusters may use the same bucket and the same names. The operator says which jobs exist.
Ages are by the clock of the store, and the list of jobs must be a day newer than a folder too, so that neither a wrong
clock nor a pod that waited long for its node makes a new job look like one that is gone.
"""

import logging
import os
from collections.abc import Sequence
from datetime import datetime, timedelta

from pydantic import ValidationError

from finetune_api.cleanup import VARIABLE, Neighbours, Owner, short
from finetune_api.layout import OWNER
from finetune_trainer.errors import StageError
from finetune_trainer.runtime.context import Context
from finetune_trainer.storage.store import StoredObject

_AGE = timedelta(days=1)
log = logging.getLogger(__name__)


def mark(context: Context) -> None:
    """Write the marker of this job's folder, if the operator knows the cluster."""
    neighbours = _neighbours()
    if neighbours:
        owner = Owner(cluster_id=neighbours.cluster_id, job=context.layout.job)
        context.store.put_bytes(context.layout.owner, owner.model_dump_json(by_alias=True).encode())


def clean(context: Context) -> None:
    """Delete what is left behind. It never fails: the job does not depend on it."""
    neighbours = _neighbours()
    if neighbours is None:
        return
    try:
        _clean(context, neighbours)
    except StageError as error:
        log.warning("what earlier jobs left behind was not all deleted: %s", error.message)


def candidates(found: Sequence[StoredObject], own: str, neighbours: Neighbours) -> dict[str, list[StoredObject]]:
    """Return the objects of each folder that may be deleted if its marker has the id of this cluster, by uid.

    `found` are the objects of all folders; those of the uid `own` are new, and show the time of the store.
    """
    folders: dict[str, list[StoredObject]] = {}
    for stored in found:
        _, _, inside = stored.key.partition("/.runs/")
        folders.setdefault(inside.partition("/")[0], []).append(stored)
    present = max((o.modified for o in folders.pop(own, [])), default=None)
    if present is None:
        return {}
    before = min(present, datetime.fromisoformat(neighbours.listed_at)) - _AGE
    return {
        uid: objects
        for uid, objects in folders.items()
        if short(uid) not in neighbours.kept and max(o.modified for o in objects) < before
    }


def _clean(context: Context, neighbours: Neighbours) -> None:
    layout, store = context.layout, context.store
    for uid, objects in candidates(store.list(layout.states), layout.uid, neighbours).items():
        folder = f"{layout.states}/{uid}"
        if not _is_of(neighbours.cluster_id, store.get_bytes(f"{folder}/{OWNER}")):
            continue
        due = objects
        if short(uid) in neighbours.failed:
            due = [o for o in objects if o.key.startswith(f"{folder}/checkpoints/")]
        # The marker goes last: a cleanup that is interrupted is continued by the next one.
        for stored in sorted(due, key=lambda o: o.key == f"{folder}/{OWNER}"):
            store.delete(stored.key)
        if due:
            size = sum(o.size_bytes for o in due) / 2**20
            log.info("deleted what an earlier job left behind: %s/%s, %.1f MiB", store.uri, folder, size)


def _is_of(cluster_id: str, marker: bytes | None) -> bool:
    if marker is None:
        return False
    try:
        return Owner.model_validate_json(marker).cluster_id == cluster_id
    except ValidationError:
        return False


def _neighbours() -> Neighbours | None:
    text = os.environ.get(VARIABLE)
    return Neighbours.model_validate_json(text) if text else None
