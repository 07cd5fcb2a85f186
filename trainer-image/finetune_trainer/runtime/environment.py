"""The environment variables that the large libraries read when they are imported."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Only this program may send anything over the network: no hub, no telemetry, no installs at run time.
FIXED = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    # Without a cache, a download takes its space on disk only once.
    "HF_XET_CHUNK_CACHE_SIZE_BYTES": "0",
    "UNSLOTH_DISABLE_STATISTICS": "1",
    "UNSLOTH_LLAMA_CPP_OFFLINE": "1",
    "UNSLOTH_OFFLINE": "1",
    "UNSLOTH_AUTO_INSTALL": "0",
    "UNSLOTH_DISABLE_LLM_COMPRESSOR_AUTOINSTALL": "1",
    "UNSLOTH_PREWARM_HUB_CACHE": "0",
    "TOKENIZERS_PARALLELISM": "false",
    # Waiting threads must not spin: when other programs use the same cores, spinning made a step ten times slower.
    "OMP_WAIT_POLICY": "PASSIVE",
}
# By default, these are in the home folder or the working folder, to which a pod cannot write.
_FOLDERS = {
    "HOME": "home",
    "TMPDIR": "tmp",
    "XDG_CACHE_HOME": "cache",
    "HF_HOME": "huggingface",
    "TORCHINDUCTOR_CACHE_DIR": "torchinductor",
    "TRITON_CACHE_DIR": "triton",
    "UNSLOTH_COMPILE_LOCATION": "unsloth_compiled_cache",
    "MPLCONFIGDIR": "matplotlib",
}
# An arbitrary uid has no passwd entry, and torch asks for the user's name.
_USER = {"USER": "trainer", "LOGNAME": "trainer"}


def cache_folder() -> Path:
    """Return where a laptop user's temporary files are: $FINETUNE_CACHE, or the usual cache folder."""
    return Path(os.environ.get("FINETUNE_CACHE") or Path.home() / ".cache" / "finetune-operator")


@contextmanager
def scratch_folder(stage: str) -> Iterator[Path]:
    """Yield an empty, private, writable folder below $FINETUNE_SCRATCH or the cache, and remove it afterwards."""
    given = os.environ.get("FINETUNE_SCRATCH")
    parent = Path(given) if given else cache_folder() / "scratch"
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{stage}-", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def variables(scratch: Path) -> dict[str, str]:
    """Return what the libraries need to stay off the network and inside `scratch`."""
    return FIXED | _USER | {name: str(scratch / folder) for name, folder in _FOLDERS.items()}


@contextmanager
def applied(scratch: Path) -> Iterator[None]:
    """Inside, set the variables and make the folders. Must come before any import of a large library."""
    for folder in _FOLDERS.values():
        (scratch / folder).mkdir(parents=True, exist_ok=True)
    before = dict(os.environ)
    os.environ.update(variables(scratch))
    tempfile.tempdir = None  # it remembers the TMPDIR of its first use
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
        tempfile.tempdir = None


def forbid_cpu_training() -> None:
    """Make Unsloth fail without a GPU instead of silently training on the CPU."""
    os.environ["UNSLOTH_DISABLE_CPU_FALLBACK"] = "1"
