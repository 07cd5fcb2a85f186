"""llama.cpp's C API: loads a GGUF file, evaluates tokens and quantizes. No other module calls it.

It uses only the C functions that llama-cpp-python makes public; its `Llama` class keeps the logits of every token of a
row and copies them once more.
"""

import contextlib
import ctypes
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from finetune_api.spec import GGUFType
from finetune_trainer.errors import ModelError
from finetune_trainer.export.llama_cpp import log as llama_log
from finetune_trainer.export.llama_cpp.ggml_tensor import GGMLTensor
from finetune_trainer.runtime.cpus import cpus

# Tokens evaluated at once. llama.cpp keeps their logits: 262 MB for a vocabulary of 128,256.
_BATCH = 512
_PIECE_BYTES = 64

# Is called with each node of the graph and a flag. True: return whether to be called again when the node is computed.
# False: the node is computed; return whether to continue.
Observer = Callable[[GGMLTensor, bool], bool]


class LlamaModel:
    """A GGUF file in llama.cpp, on the CPU. Used as a context, which frees the memory."""

    def __init__(
        self,
        path: Path,
        context_tokens: int,
        *,
        lora: Path | None = None,
        lora_scale: float = 1.0,
        observer: Observer | None = None,
    ) -> None:
        """Load the file.

        Args:
            path: the GGUF file.
            context_tokens: the most tokens of one text, prompt and answer together.
            lora: a LoRA GGUF to apply to it.
            lora_scale: a factor of what it adds; -1 takes away what a merge added.
            observer: sees the computation of every node.

        Raises:
            ModelError: llama.cpp cannot load the file.
        """
        import llama_cpp

        self._name = path.name
        self._observer = observer
        # Raised in the observer; an exception cannot pass through llama.cpp.
        self._raised: BaseException | None = None
        self._batch_tokens = min(_BATCH, context_tokens)
        with contextlib.ExitStack() as stack, llama_log.captured() as log:
            llama_cpp.llama_backend_init()
            self._model = self._load(path, log, stack)
            self._context = self._start(context_tokens, log, stack)
            self._vocabulary = llama_cpp.llama_model_get_vocab(self._model)
            self._batch = llama_cpp.llama_batch_init(self._batch_tokens, 0, 1)
            stack.callback(llama_cpp.llama_batch_free, self._batch)
            if lora is not None:
                self._apply(lora, lora_scale, log, stack)
            self._resources = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._resources.close()

    def _load(self, path: Path, log: llama_log.LlamaLog, stack: contextlib.ExitStack) -> Any:
        import llama_cpp

        parameters = llama_cpp.llama_model_default_params()
        parameters.n_gpu_layers = 0
        model = llama_cpp.llama_model_load_from_file(os.fsencode(path), parameters)
        if not model:
            raise ModelError(f"llama.cpp could not load {path.name}: {log.error}")
        stack.callback(llama_cpp.llama_model_free, model)
        return model

    def _start(self, context_tokens: int, log: llama_log.LlamaLog, stack: contextlib.ExitStack) -> Any:
        import llama_cpp

        settings = llama_cpp.llama_context_default_params()
        settings.n_ctx = context_tokens
        settings.n_batch = settings.n_ubatch = self._batch_tokens
        settings.n_threads = settings.n_threads_batch = cpus()
        settings.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
        if self._observer is not None:
            # Kept, as llama.cpp calls it as long as the context exists.
            self._callback = llama_cpp.ggml_backend_sched_eval_callback(self._observe)
            settings.cb_eval = self._callback
        context = llama_cpp.llama_init_from_model(self._model, settings)
        if not context:
            raise ModelError(f"llama.cpp could not start {self._name}: {log.error}")
        stack.callback(llama_cpp.llama_free, context)
        return context

    def _apply(self, lora: Path, scale: float, log: llama_log.LlamaLog, stack: contextlib.ExitStack) -> None:
        import llama_cpp

        adapter = llama_cpp.llama_adapter_lora_init(self._model, os.fsencode(lora))
        if not adapter:
            raise ModelError(f"llama.cpp could not load {lora.name}: {log.error}")
        stack.callback(llama_cpp.llama_adapter_lora_free, adapter)
        adapters, scales = (llama_cpp.llama_adapter_lora_p_ctypes * 1)(adapter), (ctypes.c_float * 1)(scale)
        if llama_cpp.llama_set_adapters_lora(self._context, adapters, 1, scales) != 0:
            raise ModelError(f"llama.cpp could not apply {lora.name} to {self._name}: {log.error}")

    def _observe(self, address: int, ask: bool, _data: Any) -> bool:
        try:
            return self._observer is not None and self._observer(GGMLTensor.from_address(address), ask)
        except BaseException as error:  # noqa: BLE001 - raised again when llama.cpp returns
            self._raised = error
            return False

    def tokenize(self, text: str, *, add_bos: bool) -> list[int]:
        """Return the ids of rendered text, as a server makes them."""
        import llama_cpp

        data = text.encode()
        # BOS and EOS beside one token for each byte are enough for nearly all tokenizers.
        limit = len(data) + 2
        while True:
            tokens = (llama_cpp.llama_token * limit)()
            count = llama_cpp.llama_tokenize(self._vocabulary, data, len(data), tokens, limit, add_bos, True)
            if count >= 0:
                return list(tokens[:count])
            limit = -count

    def text(self, tokens: Sequence[int]) -> bytes:
        """Return the bytes of the tokens, without those of special tokens."""
        return b"".join(self._piece(token) for token in tokens)

    def _piece(self, token: int) -> bytes:
        import llama_cpp

        size = _PIECE_BYTES
        while True:
            buffer = ctypes.create_string_buffer(size)
            count = llama_cpp.llama_token_to_piece(self._vocabulary, token, buffer, size, 0, False)
            if count >= 0:
                return buffer.raw[:count]
            size = -count

    def logits(self, tokens: Sequence[int], positions: Collection[int]) -> Iterator[Any]:
        """Evaluate a text from its beginning and yield the logits at `positions`, in ascending order, batch by batch.

        Each array is [positions in the batch, vocabulary] in 32 bit, a view that is valid until the next one.

        Raises:
            ModelError: llama.cpp cannot evaluate it.
            BaseException: what the observer raised.
        """
        self._forget()
        wanted = set(positions)
        for start in range(0, len(tokens), self._batch_tokens):
            part = tokens[start : start + self._batch_tokens]
            asked = [start + i in wanted for i in range(len(part))]
            self._decode(part, start, asked)
            if any(asked):
                yield self._last_logits(sum(asked))

    def generate(self, prompt: Sequence[int], stop_token_ids: Collection[int], limit: int) -> list[int]:
        """Return the greedy continuation: up to `limit` tokens, and none from the first stop token on.

        Raises:
            ModelError: llama.cpp cannot evaluate it.
        """
        found: list[int] = []
        *_, logits = self.logits(prompt, [len(prompt) - 1])
        while (token := int(logits[-1].argmax())) not in stop_token_ids:
            found.append(token)
            if len(found) == limit:
                break
            self._decode([token], len(prompt) + len(found) - 1, [True])
            logits = self._last_logits(1)
        return found

    def _forget(self) -> None:
        import llama_cpp

        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), True)

    def _decode(self, tokens: Sequence[int], position: int, asked: Sequence[bool]) -> None:
        """Evaluate the tokens that follow on `position` others, and keep the logits of those that are `asked` for."""
        import llama_cpp

        batch = self._batch
        batch.n_tokens = len(tokens)
        for index, (token, output) in enumerate(zip(tokens, asked, strict=True)):
            batch.token[index] = token
            batch.pos[index] = position + index
            batch.n_seq_id[index] = 1
            batch.seq_id[index][0] = 0
            batch.logits[index] = output
        with llama_log.captured() as log:
            code = llama_cpp.llama_decode(self._context, batch)
        if self._raised is not None:
            raised, self._raised = self._raised, None
            raise raised
        if code != 0:
            raise ModelError(f"llama.cpp could not evaluate {self._name}: {log.error or code}")

    def _last_logits(self, rows: int) -> Any:
        import llama_cpp
        import numpy as np

        width = llama_cpp.llama_vocab_n_tokens(self._vocabulary)
        address = ctypes.cast(llama_cpp.llama_get_logits(self._context), ctypes.POINTER(ctypes.c_float))
        return np.ctypeslib.as_array(address, shape=(rows, width))


def quantize(
    source: Path,
    target: Path,
    gguf_type: GGUFType,
    importance: Mapping[str, Any] | None,
    listen: Callable[[bytes], None],
) -> None:
    """Write a quantized GGUF of a 16-bit one. It cannot be interrupted.

    Args:
        source: the F16 file.
        target: the file to write.
        gguf_type: what to write.
        importance: the mean squares of each weight's inputs, 32 bit, by the weight's name; None: all count the same.
        listen: is called with every piece of llama.cpp's log.

    Raises:
        ModelError: llama.cpp refused.
    """
    import llama_cpp

    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = file_type(gguf_type)
    parameters.nthread = cpus()
    if importance is not None:
        parameters.imatrix = _importance_parameter(importance)
    with llama_log.captured(listen) as log:
        code = llama_cpp.llama_model_quantize(os.fsencode(source), os.fsencode(target), parameters)
    if code != 0:
        raise ModelError(f"llama.cpp could not quantize the model to {gguf_type}: {log.error or code}")


def file_type(gguf_type: GGUFType) -> int:
    """Return llama.cpp's number of the type, `general.file_type` in the file."""
    import llama_cpp

    number: int = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{gguf_type}")
    return number


def _importance_parameter(importance: Mapping[str, Any]) -> Any:
    """Return an array of `llama_model_imatrix_data` that ends in an empty one."""
    import llama_cpp

    entries = (llama_cpp.llama_model_imatrix_data * (len(importance) + 1))()
    for entry, (name, values) in zip(entries, importance.items(), strict=False):
        entry.name = name.encode()
        entry.data = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        entry.size = values.size
    return entries
