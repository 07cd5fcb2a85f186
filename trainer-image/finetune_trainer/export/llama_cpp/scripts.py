"""Runs llama.cpp's converters, which are separate Python programs."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from finetune_trainer.errors import ModelError
from finetune_trainer.runtime import environment
from finetune_trainer.runtime.llama_cpp_dir import llama_cpp_dir

_KEPT_CHARACTERS = 4000
# The progress bar of tqdm while tensors are written, which is most of the work.
_PERCENT = re.compile(r"Writing:\s+(\d+)%")


def run(script: str, arguments: Sequence[str], scratch: Path, advance: Callable[[int], None] | None = None) -> None:
    """Run one of the converters; `advance` is called with the percentage of bytes written.

    Raises:
        ModelError: the converter failed; the message has its last line.
        SettingsError: llama.cpp's scripts are not installed.
    """
    folder = llama_cpp_dir()
    # The gguf package beside the script, not the installed one.
    variables = os.environ | environment.variables(scratch) | {"PYTHONPATH": str(folder / "gguf-py")}
    process = subprocess.Popen(
        [sys.executable, str(folder / script), *arguments],
        env=variables,
        cwd=scratch,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    assert process.stdout is not None
    output, percent = "", -1
    try:
        # With universal newlines, each state of the bar is a line: it ends in a carriage return.
        for line in process.stdout:
            if (found := _PERCENT.search(line)) is None:
                output = (output + line)[-_KEPT_CHARACTERS:]
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
        sys.stderr.write(output)
        reason = next((line for line in reversed(output.splitlines()) if line.strip()), "")
        raise ModelError(f"llama.cpp could not convert the model: {reason.strip()[:300]}")
