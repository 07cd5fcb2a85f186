"""Writes GGUF files with llama.cpp's own converter and quantizer.

Every file is written under a temporary name and renamed when it is whole.
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

# Those the converter writes itself; the others are quantized from its F16 file.
_CONVERTED: dict[GGUFType, str] = {"F16": "f16", "BF16": "bf16"}
# How the quantizer's line of a tensor begins.
_TENSOR = re.compile(rb"\[\s*(\d+)/\s*(\d+)\]")
_POLL_SECONDS = 0.1


def is_converted(gguf_type: GGUFType) -> bool:
    """Return whether the converter writes this type itself."""
    return gguf_type in _CONVERTED


def convert(model: Path, target: Path, gguf_type: GGUFType, scratch: Path, advance: Callable[[int], None]) -> None:
    """Write a 16-bit GGUF of the model folder; `advance` is called with the percentage of bytes written.

    Raises:
        ModelError: the converter does not know the model.
        SettingsError: there is no converter.
    """
    with written_whole(target) as partial:
        arguments = [str(model), "--outfile", str(partial), "--outtype", _CONVERTED[gguf_type]]
        llama_scripts.run("convert_hf_to_gguf.py", arguments, scratch, advance)


def quantize(
    source: Path,
    target: Path,
    gguf_type: GGUFType,
    advance: Callable[[int], None],
    importance: ImportanceMatrix | None = None,
) -> None:
    """Write a quantized GGUF of a 16-bit one; `advance` is called with the percentage of tensors done.

    The types of 4 bit and less come in blocks of 256 weights. Where the rows of a tensor cannot be divided into such,
    llama.cpp takes a type of a little more bits with blocks of 32 for it, or F16.

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
    """Yield a temporary name beside `target`, which gets its own name only if nothing is raised."""
    partial = target.with_name(f".{target.name}.part")
    # A converter that outlived a killed attempt may be writing to it still.
    partial.unlink(missing_ok=True)
    try:
        yield partial
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


class QuantizerProgress:
    """How far the quantizer is, from its log."""

    def __init__(self) -> None:
        self.percent = 0

    def listen(self, text: bytes) -> None:
        """Read one piece of the log."""
        if (found := _TENSOR.match(text)) is not None:
            # The tensor has only begun.
            self.percent = 100 * (int(found[1]) - 1) // int(found[2])
