"""The importance matrix: how much each input of each weight matrix matters, measured on the training rows.

Types of few bits spend them where the inputs are large. For every weight matrix it holds the mean square of each input
over all tokens, which is what llama.cpp's quantizer weighs rounding errors with
(https://github.com/ggml-org/llama.cpp/pull/4861). It is read off llama.cpp's own computation of the F16 file.
"""

import contextlib
import ctypes
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_api.spec import GGUFType
from finetune_trainer.errors import ModelError
from finetune_trainer.export.gguf import ggml_tensor
from finetune_trainer.export.gguf.ggml_tensor import GGMLTensor
from finetune_trainer.export.llama_cpp import log as llama_log
from finetune_trainer.export.llama_cpp.log import LlamaLog
from finetune_trainer.methods.rows import Row
from finetune_trainer.runtime.cpus import cpus

# llama.cpp refuses the smaller IQ types without one, and the other types of less than four bits gain by it.
_NEEDED: frozenset[GGUFType] = frozenset(("IQ4_XS", "IQ3_M", "IQ2_M", "Q3_K_M", "Q2_K"))
# More than a dense model needs, as each expert of a mixture sees only a part of them. KL divergence from F16 on 751
# tokens of SmolLM2-135M-Instruct, without a matrix and by the tokens that it is measured on:
#            none   512    2048   5214
#   Q3_K_M   0.277  0.217  0.222  0.218
#   Q2_K     0.846  0.672  0.661  0.667
_TOKENS = 4096
_LONGEST_ROW = 2048
# Tokens at once; each takes memory for a logit of every word of the vocabulary.
_BATCH = 512
# Operations of ggml: a matrix times all tokens, and one of several matrices for each token.
_DENSE, _EXPERTS = "MUL_MAT", "MUL_MAT_ID"
# The layers' weights; llama.cpp's own tool leaves out embeddings and head, too.
_LAYERS = b"blk."


def needed(gguf_type: GGUFType) -> bool:
    """Return whether files of this type are made with an importance matrix."""
    return gguf_type in _NEEDED


@dataclass(frozen=True)
class ImportanceMatrix:
    """Mean squares in 32 bit by name of the weight, one after the other for each expert where there are several."""

    values: dict[str, Any]

    def as_parameter(self) -> Any:
        """Return it as llama.cpp takes it: an array of `llama_model_imatrix_data` that ends in an empty one."""
        import llama_cpp

        entries = (llama_cpp.llama_model_imatrix_data * (len(self.values) + 1))()
        for entry, (name, values) in zip(entries, self.values.items(), strict=False):
            entry.name = name.encode()
            entry.data = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
            entry.size = values.size
        return entries


def choose(rows: Sequence[Row]) -> list[list[int]]:
    """Return the token ids of rows from all over the training data, some thousand tokens in all.

    Of two answers the better one is taken.
    """
    # Every n-th first, then the ones after each: as far as the tokens reach, the choice is spread over all sources.
    stride = max(1, len(rows) * _mean_length(rows) // _TOKENS)
    chosen: list[list[int]] = []
    tokens = 0
    for start in range(stride):
        for row in rows[start::stride]:
            if tokens >= _TOKENS:
                return chosen
            chosen.append(row.sequence.input_ids[: min(_LONGEST_ROW, _TOKENS - tokens)])
            tokens += len(chosen[-1])
    return chosen


def _mean_length(rows: Sequence[Row]) -> int:
    lengths = [min(row.length, _LONGEST_ROW) for row in rows]
    return sum(lengths) // max(1, len(lengths))


def compute(f16: Path, rows: Sequence[Sequence[int]], advance: Callable[[int], None]) -> ImportanceMatrix:
    """Let the F16 file read the rows, each on its own, on the CPU; `advance` is called with the percentage of tokens.

    Raises:
        ModelError: llama.cpp cannot load or evaluate the file.
    """
    import llama_cpp

    collector = _Collector()
    settings = llama_cpp.llama_context_default_params()
    settings.n_ctx = max(len(row) for row in rows)
    settings.n_batch = settings.n_ubatch = min(_BATCH, settings.n_ctx)
    settings.n_threads = settings.n_threads_batch = cpus()
    settings.cb_eval = llama_cpp.ggml_backend_sched_eval_callback(collector.take)
    total, done = sum(len(row) for row in rows), 0
    with llama_log.heard() as log, _loaded(f16, settings, log) as context:
        for row in rows:
            llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)
            for start in range(0, len(row), _BATCH):
                part = row[start : start + _BATCH]
                _decode(context, part, start, log, collector)
                done += len(part)
                advance(100 * done // total)
    return collector.matrix()


@contextlib.contextmanager
def _loaded(path: Path, settings: Any, log: LlamaLog) -> Iterator[Any]:
    import llama_cpp

    llama_cpp.llama_backend_init()
    parameters = llama_cpp.llama_model_default_params()
    parameters.n_gpu_layers = 0
    model = llama_cpp.llama_model_load_from_file(os.fsencode(path), parameters)
    if not model:
        raise ModelError(f"llama.cpp could not load {path.name}: {log.error}")
    try:
        context = llama_cpp.llama_init_from_model(model, settings)
        if not context:
            raise ModelError(f"llama.cpp could not start {path.name}: {log.error}")
        try:
            yield context
        finally:
            llama_cpp.llama_free(context)
    finally:
        llama_cpp.llama_model_free(model)


def _decode(context: Any, tokens: Sequence[int], position: int, log: LlamaLog, collector: "_Collector") -> None:
    import llama_cpp

    batch = llama_cpp.llama_batch_init(len(tokens), 0, 1)
    try:
        batch.n_tokens = len(tokens)
        for index, token in enumerate(tokens):
            batch.token[index] = token
            batch.pos[index] = position + index
            batch.n_seq_id[index] = 1
            batch.seq_id[index][0] = 0
            # The last layer is computed only for tokens whose logits are wanted.
            batch.logits[index] = True
        code = llama_cpp.llama_decode(context, batch)
        if collector.error is not None:
            raise collector.error
        if code != 0:
            raise ModelError(f"llama.cpp could not evaluate the training rows: {log.error or code}")
    finally:
        llama_cpp.llama_batch_free(batch)


class _Collector:
    """Sums the squares of what weight matrices are multiplied with, while llama.cpp computes."""

    def __init__(self) -> None:
        self._sums: dict[str, Any] = {}
        self._counts: dict[str, Any] = {}
        # What was raised in the callback, which cannot raise through llama.cpp.
        self.error: BaseException | None = None

    def take(self, address: int, ask: bool, _data: Any) -> bool:
        """Take one node of the graph: before it is computed (`ask`) tell if it matters, afterwards go on or stop."""
        try:
            node = GGMLTensor.from_address(address)
            kind = ggml_tensor.operation(node)
            wanted = kind in (_DENSE, _EXPERTS) and node.src[0].contents.name.startswith(_LAYERS)
            if ask or not wanted:
                return wanted
            if kind == _DENSE:
                self._add_dense(node)
            else:
                self._add_experts(node)
        except BaseException as error:  # noqa: BLE001 - raised again as soon as llama.cpp has returned
            self.error = error
            return False
        return True

    def _add_dense(self, node: GGMLTensor) -> None:
        import numpy as np

        weight, inputs = node.src[0].contents, node.src[1].contents
        sums, counts = self._of(weight, inputs.ne[0])
        values = ggml_tensor.array(inputs, np.float32)
        for outer in range(inputs.ne[3]):
            for inner in range(inputs.ne[2]):
                matrix = outer % weight.ne[3] * weight.ne[2] + inner % weight.ne[2]
                sums[matrix] += _squares(values[outer, inner])
                counts[matrix] += inputs.ne[1]

    def _add_experts(self, node: GGMLTensor) -> None:
        """Of a mixture: the third source names the experts that each token was sent to."""
        import numpy as np

        weight, inputs, chosen = (node.src[i].contents for i in range(3))
        sums, counts = self._of(weight, inputs.ne[0])
        # Tokens, experts of one token or 1 where all of them see the same, inputs.
        values = ggml_tensor.array(inputs, np.float32)[0]
        experts = ggml_tensor.array(chosen, np.int32)[0, 0]
        for slot in range(experts.shape[1]):
            for expert in np.unique(experts[:, slot]):
                seen = values[experts[:, slot] == expert, slot % values.shape[1]]
                sums[expert] += _squares(seen)
                counts[expert] += len(seen)

    def _of(self, weight: GGMLTensor, inputs: int) -> tuple[Any, Any]:
        """Sums by matrix and input, and tokens by matrix."""
        import numpy as np

        name, matrices = weight.name.decode(), weight.ne[2] * weight.ne[3]
        if name not in self._sums:
            self._sums[name] = np.zeros((matrices, inputs))
            self._counts[name] = np.zeros(matrices, np.int64)
        return self._sums[name], self._counts[name]

    def matrix(self) -> ImportanceMatrix:
        """Return the means. An expert that no token was sent to counts all its inputs the same, as in llama.cpp.

        Raises:
            ModelError: the model computes what is no finite number.
        """
        import numpy as np

        values = {}
        for name, sums in self._sums.items():
            counts = self._counts[name][:, None]
            mean = np.where(counts > 0, sums / np.maximum(counts, 1), 1.0)
            if not np.isfinite(mean).all():
                raise ModelError(f"the model computes numbers that are not finite before {name}")
            values[name] = np.ascontiguousarray(mean, np.float32).ravel()
        return ImportanceMatrix(values)


def _squares(rows: Any) -> Any:
    import numpy as np

    return np.einsum("ij,ij->j", rows, rows)
