"""Runs the converters of llama.cpp, which are Python programs of their own."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from finetune_trainer.errors import ModelError, SettingsError
from finetune_trainer.runtime import environment

_KEPT_CHARACTERS = 4000
# What tqdm draws while the tensors are written, as most of the work is done then.
_PERCENT = re.compile(r"Writing:\s+(\d+)%")


def run(script: str, arguments: Sequence[str], scratch: Path, advance: Callable[[int], None] | None = None) -> None:
    """Run one of the converters; `advance` is called with the percentage of bytes written.

    Raises:
        ModelError: it refuses, with its last line.
        SettingsError: there is no converter.
    """
    folder = os.environ.get("LLAMA_CPP_DIR")
    if not folder:
        raise SettingsError("LLAMA_CPP_DIR is not set; set it to what `hack/llama-cpp source` prints")
    # Its own gguf package, not the one that is installed.
    variables = os.environ | environment.variables(scratch) | {"PYTHONPATH": str(Path(folder) / "gguf-py")}
    process = subprocess.Popen(
        [sys.executable, str(Path(folder) / script), *arguments],
        env=variables,
        cwd=scratch,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    assert process.stdout is not None
    said, percent = "", -1
    try:
        # Universal newlines: each state of the bar, which ends in a carriage return, is a line.
        for line in process.stdout:
            if (found := _PERCENT.search(line)) is None:
                said = (said + line)[-_KEPT_CHARACTERS:]
            elif int(found[1]) > percent:
                percent = int(found[1])
                if advance is not None:
                    advance(percent)
        code = process.wait()
    except BaseException:
        process.kill()
        process.wait()
        raise
    finally:
        process.stdout.close()
    if code != 0:
        sys.stderr.write(said)
        reason = next((line for line in reversed(said.splitlines()) if line.strip()), "")
        raise ModelError(f"llama.cpp could not convert the model: {reason.strip()[:300]}")
