"""Writes GGUF files with llama.cpp's own converter and quantizer.

Every file is written under a temporary name and renamed when it is complete.
"""

import contextlib
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from finetune_api.spec import GGUFType
from finetune_trainer.errors import ModelError
from finetune_trainer.export.gguf.imatrix import ImportanceMatrix
from finetune_trainer.export.llama_cpp import api as llama_api
from finetune_trainer.export.llama_cpp import scripts as llama_scripts
from finetune_trainer.runtime.llama_cpp_dir import CONVERTER

# The types that the converter writes itself; the others are quantized from its F16 file.
_CONVERTED: dict[GGUFType, str] = {"F16": "f16", "BF16": "bf16"}
# The beginning of the quantizer's log line for a tensor.
_TENSOR = re.compile(rb"\[\s*(\d+)/\s*(\d+)\]")
_POLL_SECONDS = 0.1


def is_converted(gguf_type: GGUFType) -> bool:
    """Return whether the converter writes this type itself."""
    return gguf_type in _CONVERTED


def convert(model: Path, target: Path, gguf_type: GGUFType, scratch: Path, advance: Callable[[int], None]) -> None:
    """Write a 16-bit GGUF of the model folder; `advance` is called with the percentage of bytes written.

    Raises:
        ModelError: the converter does not support the model.
        SettingsError: the converter is not installed.
    """
    with written_whole(target) as partial:
        arguments = [str(model), "--outfile", str(partial), "--outtype", _CONVERTED[gguf_type]]
        llama_scripts.run(CONVERTER, arguments, scratch, advance)


def quantize(
    source: Path,
    target: Path,
    gguf_type: GGUFType,
    advance: Callable[[int], None],
    importance: ImportanceMatrix | None = None,
) -> None:
    """Write a quantized GGUF of a 16-bit one; `advance` is called with the percentage of tensors done.

    Types of 4 bit and less have blocks of 256 weights. For a tensor whose rows are not a multiple of that, llama.cpp
    uses a slightly larger type with blocks of 32, or F16.

    Raises:
        ModelError: llama.cpp refused.
    """
    progress, failed = QuantizerProgress(), list[ModelError]()
    values = None if importance is None else importance.values
    with written_whole(target) as partial:

        def work() -> None:
            try:
                llama_api.quantize(source, partial, gguf_type, values, progress.listen)
            except ModelError as error:
                failed.append(error)

        # In a thread, so that this one can be stopped: llama.cpp cannot be interrupted.
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        reported = 0
        while thread.is_alive():
            thread.join(_POLL_SECONDS)
            if progress.percent > reported:
                reported = progress.percent
                advance(reported)
        if failed:
            raise failed[0]
        # Before the file gets its name: a small one may be done before it was polled, and `advance` may raise.
        advance(100)


@contextlib.contextmanager
def written_whole(target: Path) -> Iterator[Path]:
    """Yield a temporary name beside `target`; the file is renamed to `target` only if nothing is raised."""
    partial = target.with_name(f".{target.name}.part")
    # A converter of a killed attempt may still be writing to it.
    partial.unlink(missing_ok=True)
    try:
        yield partial
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


class QuantizerProgress:
    """The quantizer's progress, read from its log."""

    def __init__(self) -> None:
        self.percent = 0

    def listen(self, text: bytes) -> None:
        """Read one piece of the log."""
        if (found := _TENSOR.match(text)) is not None:
            # This tensor is not done yet.
            self.percent = 100 * (int(found[1]) - 1) // int(found[2])
