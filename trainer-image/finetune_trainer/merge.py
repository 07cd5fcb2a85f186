"""Adds the adapter to the original 16-bit weights, tensor by tensor, on the CPU.

W' = W + s * B A in 32 bit, rounded once to F16, with s = alpha / r, or alpha / sqrt(r) for rank-stabilized LoRA
(https://arxiv.org/abs/2312.03732). No tensor but the one at work is in memory, whatever the size of the model's files.
"""

import json
import math
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from finetune_trainer.adapter import CHAT_TEMPLATE, CONFIG, WEIGHTS
from finetune_trainer.errors import ModelError

# The largest finite F16 number.
F16_LARGEST = 65504.0
_PREFIX = "base_model.model."
_INDEX = "model.safetensors.index.json"


def scale(config: dict[str, Any]) -> float:
    """Return what B A is multiplied with."""
    rank, alpha = int(config["r"]), float(config["lora_alpha"])
    return alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank


def module_of(key: str) -> tuple[str, str]:
    """Return the base weight and the part ("lora_A" or "lora_B") of a tensor of the adapter's file.

    Raises:
        ModelError: the adapter holds something that cannot be merged.
    """
    for part in ("lora_A", "lora_B"):
        if key.startswith(_PREFIX) and key.endswith(f".{part}.weight"):
            return f"{key.removeprefix(_PREFIX).removesuffix(f'.{part}.weight')}.weight", part
    raise ModelError(f"the adapter's tensor {key} is no LoRA matrix and cannot be merged")


class Adapter:
    """The adapter's matrices by the base weight that they change."""

    def __init__(self, folder: Path) -> None:
        """Read `folder`.

        Raises:
            ModelError: it cannot be merged, or every B is zero.
        """
        from safetensors.torch import load_file

        self._scale = scale(json.loads((folder / CONFIG).read_text()))
        self._matrices: dict[str, dict[str, Any]] = {}
        for key, tensor in load_file(folder / WEIGHTS).items():
            weight, part = module_of(key)
            self._matrices.setdefault(weight, {})[part] = tensor
        if not any(bool(pair["lora_B"].any()) for pair in self._matrices.values()):
            raise ModelError("the adapter changes nothing: all its B matrices are zero")

    @property
    def weights(self) -> set[str]:
        """The base weights that it changes."""
        return set(self._matrices)

    def changes(self, weight: str) -> bool:
        """Whether B is more than zeros."""
        return weight in self._matrices and bool(self._matrices[weight]["lora_B"].any())

    def delta(self, weight: str) -> Any:
        """Return s * B A in 32 bit."""
        pair = self._matrices[weight]
        return (pair["lora_B"].float() @ pair["lora_A"].float()) * self._scale


def merge(base: Path, adapter_folder: Path, target: Path, advance: Callable[[int], None]) -> None:
    """Write the merged model to `target` as F16 safetensors with the base's other files.

    `advance` is called with the percentage of bytes done.

    Raises:
        ModelError: the adapter does not fit the base, or a weight does not fit F16.
    """
    adapter = Adapter(adapter_folder)
    shards = weight_files(base)
    size = sum(path.stat().st_size for path in shards)
    target.mkdir(parents=True)
    done = 0
    missing = adapter.weights
    for path in shards:
        missing -= _merge_file(path, adapter, target / path.name)
        done += path.stat().st_size
        advance(100 * done // size)
    if missing:
        raise ModelError(f"the adapter changes {min(missing)}, which is not in the model's weights")
    _copy_other_files(base, adapter_folder, target)


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files that make up the model.

    Raises:
        ModelError: there is none.
    """
    index = folder / _INDEX
    if index.is_file():
        return [folder / name for name in sorted(set(json.loads(index.read_text())["weight_map"].values()))]
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    raise ModelError("the model has no safetensors weights; export needs them")


def _merge_file(path: Path, adapter: Adapter, target: Path) -> set[str]:
    """Write one file; return the weights in it that the adapter changed."""
    from safetensors import safe_open

    changed: set[str] = set()
    with safe_open(path, framework="pt") as file, target.open("wb") as out:
        names = list(file.keys())
        write_header(out, {name: file.get_slice(name).get_shape() for name in names})
        for name in names:
            tensor = file.get_tensor(name)
            if not tensor.dtype.is_floating_point:
                raise ModelError(f"{path.name}: {name} is {tensor.dtype}; only 16 or 32-bit weights can be merged")
            merged = tensor.float()
            if name in adapter.weights:
                delta = adapter.delta(name)
                if delta.shape != merged.shape:
                    raise ModelError(f"the adapter's shape for {name} is not the model's: it is of another model")
                merged = merged + delta
                changed.add(name)
            # Written as "not <=", so that it catches what is no number too.
            if merged.numel() and not float(merged.abs().max()) <= F16_LARGEST:
                raise ModelError(f"{name} has values that F16 cannot hold; this model cannot be exported to GGUF")
            half = merged.half()
            if adapter.changes(name) and bool((half == tensor.half()).all()):
                raise ModelError(
                    f"{name} is the same with the adapter as without it: what was learned is lost in rounding; "
                    "raise spec.training.maxSteps or learningRate"
                )
            out.write(half.contiguous().numpy().tobytes())
    return changed


def write_header(out: BinaryIO, shapes: dict[str, list[int]]) -> None:
    """Write the head of a safetensors file of F16 tensors that follow in this order.

    The format: 8 bytes of length, a JSON object of that length, the tensors' bytes
    (https://github.com/huggingface/safetensors#format).
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, shape in shapes.items():
        end = offset + 2 * math.prod(shape)
        header[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    data = json.dumps(header, separators=(",", ":")).encode()
    data += b" " * (-len(data) % 8)
    out.write(struct.pack("<Q", len(data)))
    out.write(data)


def merged_config(config: dict[str, Any]) -> dict[str, Any]:
    """Return config.json of the merged model: 16 bit, and no word of how the base was stored."""
    kept = {k: v for k, v in config.items() if k not in ("quantization_config", "torch_dtype", "dtype")}
    return kept | {"torch_dtype": "float16"}


def _copy_other_files(base: Path, adapter_folder: Path, target: Path) -> None:
    for path in _small_files(base):
        shutil.copyfile(path, target / path.name)
    config = json.loads((base / "config.json").read_text())
    (target / "config.json").write_text(json.dumps(merged_config(config), indent=2))
    template = adapter_folder / CHAT_TEMPLATE
    if template.is_file():
        # The converter prefers a template in tokenizer_config.json, which need not be the one that was trained with.
        shutil.copyfile(template, target / CHAT_TEMPLATE)
        settings = json.loads((target / "tokenizer_config.json").read_text())
        settings.pop("chat_template", None)
        (target / "tokenizer_config.json").write_text(json.dumps(settings, ensure_ascii=False, indent=2))
    index = base / _INDEX
    if index.is_file():
        shutil.copyfile(index, target / _INDEX)


def _small_files(base: Path) -> Iterator[Path]:
    weights = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx")
    for path in sorted(base.iterdir()):
        if path.is_file() and not path.name.endswith(weights) and not path.name.endswith(".index.json"):
            yield path
