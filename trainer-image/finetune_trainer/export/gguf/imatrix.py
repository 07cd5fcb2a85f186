"""The importance matrix: how much each input of each weight matrix matters, measured on the training rows.

Types of few bits spend them where the inputs are large. For every weight matrix it has the mean square of each input
over all tokens, by which llama.cpp's quantizer weights rounding errors
(https://github.com/ggml-org/llama.cpp/pull/4861). It is measured while llama.cpp evaluates the F16 file.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_api.spec import GGUFType
from finetune_trainer.errors import ModelError
from finetune_trainer.export.llama_cpp import ggml_tensor
from finetune_trainer.export.llama_cpp.api import LlamaModel
from finetune_trainer.export.llama_cpp.ggml_tensor import GGMLTensor
from finetune_trainer.methods.rows import Row

# llama.cpp refuses the smaller IQ types without one, and the other types of less than four bits are better with it.
_NEEDED: frozenset[GGUFType] = frozenset(("IQ4_XS", "IQ3_M", "IQ2_M", "Q3_K_M", "Q2_K"))
# More than a dense model needs, because each expert of a mixture sees only some of them. KL divergence from F16 on 751
# tokens of SmolLM2-135M-Instruct, without a matrix and by the number of tokens that it is measured on:
#            none   512    2048   5214
#   Q3_K_M   0.277  0.217  0.222  0.218
#   Q2_K     0.846  0.672  0.661  0.667
_TOKENS = 4096
_LONGEST_ROW = 2048
# Operations of ggml: one matrix for all tokens, and one of several matrices for each token.
_DENSE, _EXPERTS = "MUL_MAT", "MUL_MAT_ID"
# The layers' weights; llama.cpp's own tool also leaves out embeddings and head.
_LAYERS = b"blk."


def needed(gguf_type: GGUFType) -> bool:
    """Return whether this type is quantized with an importance matrix."""
    return gguf_type in _NEEDED


@dataclass(frozen=True)
class ImportanceMatrix:
    """Mean squares in 32 bit by the name of the weight; those of a mixture's experts are concatenated."""

    values: dict[str, Any]


def choose(rows: Sequence[Row]) -> list[list[int]]:
    """Return the token ids of rows spread over the training data, a few thousand tokens in all.

    The better of two answers is used.
    """
    # Every n-th row first, then the row after each: the choice is spread over all sources, however many tokens it has.
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
    """Evaluate each row with the F16 file on the CPU; `advance` is called with the percentage of tokens.

    Raises:
        ModelError: llama.cpp cannot load or evaluate the file, or it computes values that are not finite.
    """
    collector = _Collector()
    total, done = sum(len(row) for row in rows), 0
    with LlamaModel(f16, max(len(row) for row in rows), observer=collector.take) as model:
        for row in rows:
            # The last layer is computed only for tokens whose logits are wanted.
            for logits in model.logits(row, range(len(row))):
                done += len(logits)
                advance(100 * done // total)
    return collector.matrix()


class _Collector:
    """Sums the squares of each weight matrix's inputs while llama.cpp evaluates."""

    def __init__(self) -> None:
        self._sums: dict[str, Any] = {}
        self._counts: dict[str, Any] = {}

    def take(self, node: GGMLTensor, ask: bool) -> bool:
        """Take one node of the graph; see `api.Observer`."""
        kind = ggml_tensor.operation(node)
        wanted = kind in (_DENSE, _EXPERTS) and node.src[0].contents.name.startswith(_LAYERS)
        if ask or not wanted:
            return wanted
        if kind == _DENSE:
            self._add_dense(node)
        else:
            self._add_experts(node)
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
        """For a mixture of experts: the third source names the experts of each token."""
        import numpy as np

        weight, inputs, chosen = (node.src[i].contents for i in range(3))
        sums, counts = self._of(weight, inputs.ne[0])
        # [tokens, experts per token (1 if all have the same input), inputs]
        values = ggml_tensor.array(inputs, np.float32)[0]
        experts = ggml_tensor.array(chosen, np.int32)[0, 0]
        for slot in range(experts.shape[1]):
            for expert in np.unique(experts[:, slot]):
                seen = values[experts[:, slot] == expert, slot % values.shape[1]]
                sums[expert] += _squares(seen)
                counts[expert] += len(seen)

    def _of(self, weight: GGMLTensor, inputs: int) -> tuple[Any, Any]:
        """Return the sums by matrix and input, and the token counts by matrix."""
        import numpy as np

        name, matrices = weight.name.decode(), weight.ne[2] * weight.ne[3]
        if name not in self._sums:
            self._sums[name] = np.zeros((matrices, inputs))
            self._counts[name] = np.zeros(matrices, np.int64)
        return self._sums[name], self._counts[name]

    def matrix(self) -> ImportanceMatrix:
        """Return the means. An expert without tokens weights all its inputs the same, as in llama.cpp.

        Raises:
            ModelError: a value is not finite.
        """
        import numpy as np

        values = {}
        for name, sums in self._sums.items():
            counts = self._counts[name][:, None]
            mean = np.where(counts > 0, sums / np.maximum(counts, 1), 1.0)
            if not np.isfinite(mean).all():
                raise ModelError(f"the inputs of {name} are not finite numbers")
            values[name] = np.ascontiguousarray(mean, np.float32).ravel()
        return ImportanceMatrix(values)


def _squares(rows: Any) -> Any:
    import numpy as np

    return np.einsum("ij,ij->j", rows, rows)
