"""Finds a complete run with identical inputs, and makes complete runs findable."""

import json
import logging
from datetime import UTC, datetime
from typing import Any

from finetune_api.exit_codes import ExitCode
from finetune_api.layout import MANIFEST, join_uri
from finetune_api.result import StageResult
from finetune_api.status import ModelStatus
from finetune_trainer.errors import ModelError, SettingsError
from finetune_trainer.run_folder import manifest
from finetune_trainer.run_folder.manifest import Manifest
from finetune_trainer.runtime.context import Context
from finetune_trainer.storage.store import checked_key

log = logging.getLogger(__name__)


def find(context: Context, run_id: str) -> StageResult | None:
    """Return prepare's result, with `reused_from`, if a run of this id is complete and the plan lets it be used.

    The run may be of any job of the namespace. This job's latest.json then points to it.

    Raises:
        ModelError: every file of that run failed its proof, and would again.
    """
    if context.plan.output.reuse != "Identical":
        return None
    # Also the run's own folder: a crash between manifest and index leaves it without an entry.
    folders = [_indexed(context, run_id), context.layout.run(run_id)]
    for folder in dict.fromkeys(f for f in folders if f is not None):
        found = manifest.read_complete(context.store, folder)
        if found is not None and found.run_id == run_id:
            log.info("an identical run is complete: %s", join_uri(context.store.uri, folder))
            publish(context, folder, found)
            if (why := manifest.all_rejected(found.artifacts)) is not None:
                raise ModelError(why)
            return _result(found, folder)
    return None


def publish(context: Context, folder: str, found: Manifest) -> None:
    """Make a complete run findable: by its id in the namespace, and as the newest of this job's name."""
    store, layout = context.store, context.layout
    entry = {
        "runId": found.run_id,
        "folder": folder,
        "job": found.job["name"],
        "time": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    _put(context, layout.index(found.run_id), entry)
    latest = {"runId": found.run_id, "uri": join_uri(store.uri, folder), "manifest": f"{folder}/{MANIFEST}"}
    _put(context, layout.latest, latest)


def newest(context: Context, job: str) -> tuple[str, Manifest] | None:
    """Return the folder and the manifest of the newest complete run of a job of the namespace, or None."""
    latest = _read(context, f"{context.layout.namespace}/{job}/{context.layout.latest.rpartition('/')[2]}")
    folder = str(latest.get("manifest", "")).rpartition("/")[0]
    if not _is_in_namespace(context, folder):
        return None
    found = manifest.read_complete(context.store, folder)
    return (folder, found) if found else None


def _indexed(context: Context, run_id: str) -> str | None:
    folder = str(_read(context, context.layout.index(run_id)).get("folder", ""))
    return folder if _is_in_namespace(context, folder) else None


def _is_in_namespace(context: Context, folder: str) -> bool:
    try:
        return checked_key(folder).startswith(f"{context.layout.namespace}/")
    except SettingsError:
        return False


def _read(context: Context, key: str) -> dict[str, Any]:
    """Return a pointer's content; a damaged one counts as missing."""
    try:
        content = json.loads(context.store.get_bytes(key) or b"{}")
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _put(context: Context, key: str, content: dict[str, Any]) -> None:
    context.store.put_bytes(key, json.dumps(content, indent=2).encode())


def _result(found: Manifest, folder: str) -> StageResult:
    return StageResult(
        stage="prepare",
        exit_code=ExitCode.OK,
        run_id=found.run_id,
        reused_from=folder,
        dataset=found.dataset,
        model=ModelStatus(
            revision=found.model.revision,
            parameters=found.model.parameters,
            architecture=found.model.architecture,
            template=found.template,
            adapter=found.adapter.uri if found.adapter else None,
        ),
        memory=found.memory,
        effective=found.effective,
        evaluation=found.evaluation,
        artifacts=found.artifacts,
    )
