"""llama.cpp's log. Its functions return no more than a number; the reason for a failure is in the log."""

import contextlib
import ctypes
from collections.abc import Callable, Iterator

# `ggml_log_level` in ggml.h.
_ERROR = 4
_LONGEST = 300


class LlamaLog:
    """The last line that llama.cpp logged as an error."""

    def __init__(self) -> None:
        self.error = ""

    def take(self, level: int, text: bytes) -> None:
        """Read one piece of the log."""
        line = " ".join(text.decode(errors="replace").replace("=", " ").split())
        if level == _ERROR and line:
            self.error = line[:_LONGEST]


@contextlib.contextmanager
def captured(listen: Callable[[bytes], None] | None = None) -> Iterator[LlamaLog]:
    """Capture llama.cpp's log instead of printing it; `listen` gets every piece, on llama.cpp's thread."""
    import llama_cpp

    log = LlamaLog()

    def take(level: int, text: bytes, _data: ctypes.c_void_p) -> None:
        log.take(level, text)
        if listen is not None:
            listen(text)

    callback = llama_cpp.llama_log_callback(take)
    before, data = llama_cpp.llama_log_callback(), ctypes.c_void_p()
    llama_cpp.llama_log_get(ctypes.byref(before), ctypes.byref(data))
    llama_cpp.llama_log_set(callback, ctypes.c_void_p())
    try:
        yield log
    finally:
        llama_cpp.llama_log_set(before, data)
