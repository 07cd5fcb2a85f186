"""Fetches the model's files: the small ones for prepare, all of them for train and export."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

from finetune_api.plan import ModelPlan, WeightsPlan
from finetune_api.progress import Activity
from finetune_trainer.errors import ModelError, SettingsError
from finetune_trainer.runtime.context import Context
from finetune_trainer.sources.folder_model import FolderModel
from finetune_trainer.sources.hash_cache import HashCache
from finetune_trainer.sources.hub_model import HubModel
from finetune_trainer.sources.model_files import Listing, ModelFiles, is_weights
from finetune_trainer.sources.resolved import ModelFile, ResolvedModel
from finetune_trainer.sources.s3_model import S3Model
from finetune_trainer.storage.open import open_s3
from finetune_trainer.storage.store import checked_key

_FOLDER = "model"


@contextmanager
def opened_model(
    context: Context, pinned: ResolvedModel | None = None, plan: ModelPlan | WeightsPlan | None = None
) -> Iterator[ModelFiles]:
    """Open the plan's model, or the one in `plan`; `pinned` is what prepare found.

    Raises:
        SettingsError: the plan has no model.
        AccessDeniedError: a Secret lacks a key.
    """
    plan = plan or context.plan.model
    model: ModelFiles
    if plan.hub:
        model = HubModel(plan.hub, pinned.revision if pinned else None)
    elif plan.s3:
        model = S3Model(open_s3(plan.s3))
    elif plan.path:
        folder = Path(plan.path).resolve()
        model = FolderModel(
            folder,
            lambda done, total: _report(context, "Checking", done, total),
            known=pinned.files if pinned else (),
            cache=None if pinned else HashCache(context.store, context.layout, folder),
        )
    else:
        raise SettingsError("the plan has no model; set spec.model")
    try:
        yield model
    finally:
        model.close()


def fetch_metadata(context: Context, model: ModelFiles, listing: Listing, folder: str = "model-metadata") -> Path:
    """Return a folder with everything but the weights: configuration and tokenizer."""
    return _fetch(context, model, [f for f in listing.files if not is_weights(f)], context.scratch / folder)


def pinned(model: ModelFiles, listing: Listing, found: ResolvedModel) -> ResolvedModel:
    """Return what was found with the identity of its files, which come from `listing`; this may read all of them."""
    identified = model.identified(listing)
    files = {f.path: f for f in identified.files}
    return found.model_copy(update={"revision": identified.revision, "files": [files[f.path] for f in found.files]})


def fetch_original(context: Context, resolved: ResolvedModel) -> Path:
    """Return a local folder with the 16-bit weights that prepare pinned; raises as `fetch_weights`."""
    return _fetch_pinned(context, resolved, context.plan.export.original, context.scratch / "original")


def fetch_weights(context: Context, resolved: ResolvedModel) -> Path:
    """Return a local folder with exactly the files that prepare pinned.

    Raises:
        ModelError: the model changed or disappeared after prepare.
        SettingsError: the scratch space is too small.
        AccessDeniedError, UnavailableError: as `store.Store`.
    """
    return _fetch_pinned(context, resolved, context.plan.model, context.scratch / _FOLDER)


def _fetch_pinned(
    context: Context, resolved: ResolvedModel, plan: ModelPlan | WeightsPlan | None, folder: Path
) -> Path:
    context.reporter.report("Downloading" if plan is None or plan.path is None else "Checking")
    with opened_model(context, resolved, plan) as model:
        found = {f.path: f for f in model.identified(model.listing()).files}
        for file in resolved.files:
            now = found.get(file.path)
            if now is None or (now.size_bytes, now.identity) != (file.size_bytes, file.identity):
                raise ModelError(
                    f"{resolved.reference}: {file.path} changed after prepare checked it; do not write to a "
                    f"model's folder while jobs use it; delete this FineTuneJob and create it again"
                )
        return _fetch(context, model, resolved.files, folder)


def _fetch(context: Context, model: ModelFiles, files: Sequence[ModelFile], folder: Path) -> Path:
    for file in files:
        checked_key(file.path)
    total = sum(f.size_bytes for f in files)
    free = shutil.disk_usage(context.scratch).free
    if not isinstance(model, FolderModel) and total > free:
        raise SettingsError(
            f"the model needs {total / 1e9:.1f} GB and the scratch space has {free / 1e9:.1f} GB left; "
            "raise compute.scratch.size"
        )
    lock, done = Lock(), 0

    def progress(count: int) -> None:
        nonlocal done
        with lock:
            done += count
            _report(context, "Downloading", done, total)

    place = model.fetch(files, folder, progress)
    for file in files:
        size = (place / file.path).stat().st_size
        if size != file.size_bytes:
            raise ModelError(
                f"{file.path} has {size} bytes, not {file.size_bytes}: it changed during the download; try again"
            )
    return place


def _report(context: Context, activity: Activity, done: int, total: int) -> None:
    context.reporter.report(activity, percent=100 * done // total if total else 100)
