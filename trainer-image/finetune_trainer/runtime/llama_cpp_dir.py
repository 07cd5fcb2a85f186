"""Where llama.cpp's converters are, which are separate Python programs: the image has them, another machine may not."""

import os
from pathlib import Path

from finetune_trainer.errors import SettingsError

CONVERTER = "convert_hf_to_gguf.py"
_VARIABLE = "LLAMA_CPP_DIR"
_REMEDY = "set it to what `hack/llama-cpp source` prints"


def llama_cpp_dir() -> Path:
    """Return the folder that LLAMA_CPP_DIR names.

    Raises:
        SettingsError: it is not set, or has no converter.
    """
    folder = os.environ.get(_VARIABLE)
    if not folder:
        raise SettingsError(f"{_VARIABLE} is not set; {_REMEDY}")
    if not (Path(folder) / CONVERTER).is_file():
        raise SettingsError(f"{_VARIABLE} is {folder}, which has no {CONVERTER}; {_REMEDY}")
    return Path(folder)
