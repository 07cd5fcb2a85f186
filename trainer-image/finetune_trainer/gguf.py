"""Writes GGUF files with llama.cpp's own converter and quantizer."""

import math
import os
import subprocess
import sys
from pathlib import Path

from finetune_api.spec import GGUFType
from finetune_trainer import environment
from finetune_trainer.errors import ModelError, SettingsError

# Those the converter writes itself; the others are quantized from its F16 file.
_CONVERTED: dict[GGUFType, str] = {"F16": "f16", "BF16": "bf16"}
_CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def cpus() -> int:
    """Return how many CPUs this container may use; more threads than that make llama.cpp slower."""
    available = len(os.sched_getaffinity(0))
    try:
        quota, period = _CPU_QUOTA.read_text().split()
    except OSError:
        return available
    return available if quota == "max" else max(1, min(available, math.ceil(int(quota) / int(period))))


def convert(model: Path, target: Path, gguf_type: GGUFType, scratch: Path) -> None:
    """Write a 16-bit GGUF of the model folder.

    Raises:
        ModelError: the converter does not know the model.
        SettingsError: there is no converter.
    """
    folder = os.environ.get("LLAMA_CPP_DIR")
    if not folder:
        raise SettingsError("LLAMA_CPP_DIR is not set; set it to what `hack/llama-cpp source` prints")
    arguments = [sys.executable, str(Path(folder) / "convert_hf_to_gguf.py"), str(model)]
    arguments += ["--outfile", str(target), "--outtype", _CONVERTED[gguf_type]]
    # Its own gguf package, not the one that is installed.
    variables = os.environ | environment.variables(scratch) | {"PYTHONPATH": str(Path(folder) / "gguf-py")}
    done = subprocess.run(
        arguments,
        env=variables,
        cwd=scratch,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode != 0:
        sys.stderr.write(done.stdout[-4000:])
        reason = next((line for line in reversed(done.stdout.splitlines()) if line.strip()), "")
        raise ModelError(f"llama.cpp could not convert the model: {reason.strip()[:300]}")


def quantize(source: Path, target: Path, gguf_type: GGUFType) -> None:
    """Write a quantized GGUF of a 16-bit one.

    Raises:
        ModelError: llama.cpp refused.
    """
    import llama_cpp

    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{gguf_type}")
    parameters.nthread = cpus()
    code = llama_cpp.llama_model_quantize(os.fsencode(source), os.fsencode(target), parameters)
    if code != 0:
        raise ModelError(f"llama.cpp could not quantize the model to {gguf_type}: it returned {code}")


def is_converted(gguf_type: GGUFType) -> bool:
    """Return whether the converter writes this type itself."""
    return gguf_type in _CONVERTED
