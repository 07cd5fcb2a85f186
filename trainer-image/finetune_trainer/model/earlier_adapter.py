"""An earlier adapter that is trained further: found and checked in prepare, fetched in train."""

import json
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

from finetune_api.layout import join_uri
from finetune_api.plan import AdapterPlan, LoRAPlan
from finetune_trainer.errors import ModelError, SettingsError
from finetune_trainer.model.adapter import CONFIG, FOLDER, WEIGHTS
from finetune_trainer.model.checked import CheckedModel
from finetune_trainer.model.lora_weights import module_of
from finetune_trainer.model.safetensors_header import Tensor, read_tensors
from finetune_trainer.run_folder import reuse
from finetune_trainer.runtime.context import Context
from finetune_trainer.sources.folder_model import FolderModel
from finetune_trainer.sources.resolved import ModelFile, ResolvedAdapter
from finetune_trainer.storage.checksum import sha256_of
from finetune_trainer.storage.folder import FileStore
from finetune_trainer.storage.open import open_s3
from finetune_trainer.storage.store import Store

_PICKLE = "adapter_model.bin"
# PEFT settings that change what an adapter computes. Our adapters have these values.
_PLAIN = {
    "bias": "none",
    "use_dora": False,
    "modules_to_save": None,
    "rank_pattern": None,
    "alpha_pattern": None,
    "lora_bias": False,
    "trainable_token_indices": None,
    "target_parameters": None,
}


class _Place(NamedTuple):
    store: Store
    # The adapter's folder in the store; "": its root.
    folder: str
    uri: str
    run_id: str | None = None


def resolve(context: Context, model: CheckedModel) -> ResolvedAdapter | None:
    """Return the plan's adapter, pinned by its checksum, or None if the plan has none.

    Raises:
        ModelError: it does not exist, is not a LoRA adapter in safetensors, or belongs to another model.
        SettingsError: the job's LoRA settings differ from the adapter's.
        AccessDeniedError, UnavailableError: as `store.Store`.
    """
    plan = context.plan.model.adapter
    if plan is None:
        return None
    place = _find(context, plan)
    folder = _download(context, place)
    config = _read_config(folder, place.uri)
    _check_kind(config, place.uri)
    _check_fits(config, _tensors(folder), model, place.uri)
    _check_request(config, _tensors(folder), context.plan.training.lora, place.uri)
    return ResolvedAdapter(
        uri=place.uri,
        run_id=place.run_id,
        folder=place.folder if plan.job else None,
        sha256=sha256_of(folder / WEIGHTS),
    )


def fetch(context: Context, resolved: ResolvedAdapter | None) -> Path | None:
    """Return a folder with the adapter that prepare pinned, or None if there is none to start from.

    Raises:
        ModelError: it changed or disappeared after prepare.
        AccessDeniedError, UnavailableError: as `store.Store`.
    """
    if resolved is None:
        return None
    plan = context.plan.model.adapter
    if plan is None:
        raise SettingsError("prepare ran with a different plan, which has model.adapter; run prepare again")
    if resolved.folder is not None:
        place = _Place(context.store, resolved.folder, resolved.uri, resolved.run_id)
    else:
        place = _find(context, plan)
    folder = _download(context, place)
    if sha256_of(folder / WEIGHTS) != resolved.sha256:
        raise ModelError(
            f"model.adapter: {resolved.uri}/{WEIGHTS} changed after prepare checked it; "
            "delete this FineTuneJob and create it again"
        )
    return folder


def _find(context: Context, plan: AdapterPlan) -> _Place:
    if plan.job:
        found = reuse.newest(context, plan.job)
        if found is None:
            raise ModelError(
                f'model.adapter: the FineTuneJob "{plan.job}" has no complete run below {context.store.uri}; '
                "wait until it succeeds, and use the same spec.output.s3.uri in both jobs"
            )
        folder, manifest = found
        return _Place(context.store, f"{folder}/{FOLDER}", join_uri(context.store.uri, folder), manifest.run_id)
    if plan.s3:
        store = open_s3(plan.s3)
        return _Place(store, "", store.uri)
    local = FileStore(Path(plan.path or ""))
    return _Place(local, "", local.uri)


def _download(context: Context, place: _Place) -> Path:
    prefix = f"{place.folder}/" if place.folder else ""
    names = {stored.key.removeprefix(prefix) for stored in place.store.list(place.folder)}
    if WEIGHTS not in names and _PICKLE in names:
        raise ModelError(
            f"model.adapter: {place.uri} has its weights as a pickle file ({_PICKLE}) only, which can run code; "
            "save the adapter again as safetensors"
        )
    for name in (CONFIG, WEIGHTS):
        if name not in names:
            raise ModelError(
                f"model.adapter: {place.uri} has no {name}; name the folder of an adapter as PEFT saves it"
            )
    folder = context.scratch / "earlier-adapter"
    folder.mkdir(exist_ok=True)
    context.reporter.report("Downloading")
    for name in (CONFIG, WEIGHTS):
        place.store.get_file(f"{prefix}{name}", folder / name)
    return folder


def _read_config(folder: Path, uri: str) -> dict[str, Any]:
    try:
        content = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise ModelError(f"model.adapter: {uri}/{CONFIG} is not a JSON object; upload it again")
    return content


def _tensors(folder: Path) -> dict[str, Tensor]:
    """Return the adapter's matrices by name."""
    path = folder / WEIGHTS
    file = ModelFile(path=WEIGHTS, size_bytes=path.stat().st_size, identity="")
    return read_tensors(FolderModel(folder, lambda _done, _total: None), [file])


def _check_kind(config: Mapping[str, Any], uri: str) -> None:
    if config.get("peft_type") != "LORA":
        raise ModelError(
            f"model.adapter: {uri} is an adapter of type {config.get('peft_type')}; only LoRA adapters can be continued"
        )
    for name, plain in _PLAIN.items():
        if (config.get(name) or plain) != plain:
            raise ModelError(
                f"model.adapter: {uri} was made with {name}, which cannot be continued; use a plain LoRA adapter"
            )


def _check_fits(config: Mapping[str, Any], tensors: Mapping[str, Tensor], model: CheckedModel, uri: str) -> None:
    """Compare the shapes with the model's: B A must have the shape of the weight that it is added to."""
    pairs: dict[str, dict[str, tuple[int, ...]]] = {}
    for key, tensor in tensors.items():
        weight, part = module_of(key)
        pairs.setdefault(weight, {})[part] = tensor.shape
    fits = bool(pairs) and all(_pair_fits(pair, model.tensors.get(weight)) for weight, pair in pairs.items())
    if not fits:
        base = config.get("base_model_name_or_path") or "another model"
        raise ModelError(
            f"model.adapter: {uri} was trained on {base} and does not fit {model.resolved.reference}; "
            "set spec.model to the model that it was trained on"
        )


def _pair_fits(pair: Mapping[str, tuple[int, ...]], weight: Tensor | None) -> bool:
    if weight is None or pair.keys() != {"lora_A", "lora_B"}:
        return False
    (rank, inputs), (outputs, rank_of_b) = pair["lora_A"], pair["lora_B"]
    if rank != rank_of_b:
        return False
    if weight.dtype == "U8":  # 4 bit: two weights in a byte, in one column
        return outputs * inputs == 2 * prod(weight.shape)
    return (outputs, inputs) == weight.shape


def _check_request(config: Mapping[str, Any], tensors: Mapping[str, Tensor], lora: LoRAPlan, uri: str) -> None:
    """Check that the job's LoRA settings are the adapter's; the message names all differences at once."""
    modules = sorted({module_of(key)[0].split(".")[-2] for key in tensors})
    present: dict[str, tuple[object, object]] = {
        "rank": (config.get("r"), lora.rank),
        "alpha": (config.get("lora_alpha"), lora.alpha),
        "useRSLoRA": (bool(config.get("use_rslora")), lora.use_rslora),
        "targetModules": (modules, sorted(lora.target_modules)),
    }
    changes = [f"{name} to {_text(has)}" for name, (has, asked) in present.items() if has != asked]
    if changes:
        raise SettingsError(
            f"model.adapter: {uri} does not match training.lora; in spec.training.lora, set {' and '.join(changes)}"
        )


def _text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"[{', '.join(value)}]" if isinstance(value, list) else str(value)
