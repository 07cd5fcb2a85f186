"""Estimates the GPU memory of training, by part, from the model's shape alone."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

_MIB = 1024 * 1024
Checkpointing = Literal["None", "Standard", "Offload"]

# bitsandbytes NF4: half a byte a weight, and its nested absmax (one byte per 64 weights, a float per 256 of those).
NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
_HALF = 2


@dataclass(frozen=True)
class Shape:
    """The sizes of a decoder that determine its memory."""

    hidden: int
    intermediate: int
    layers: int
    heads_width: int
    key_value_width: int
    vocabulary: int
    tied: bool

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Self | None:
        """Read a config.json; None if it lacks a needed size."""
        text = config.get("text_config") or config
        try:
            hidden, heads = int(text["hidden_size"]), int(text["num_attention_heads"])
            head = int(text.get("head_dim") or hidden // heads)
            return cls(
                hidden=hidden,
                intermediate=int(text["intermediate_size"]),
                layers=int(text["num_hidden_layers"]),
                heads_width=heads * head,
                key_value_width=int(text.get("num_key_value_heads") or heads) * head,
                vocabulary=int(text["vocab_size"]),
                tied=bool(text.get("tie_word_embeddings", config.get("tie_word_embeddings", False))),
            )
        except (KeyError, TypeError, ValueError):
            return None

    def linears(self) -> dict[str, tuple[int, int]]:
        """Return (inputs, outputs) of the linear layers of one block by their usual names."""
        return {
            "q_proj": (self.hidden, self.heads_width),
            "k_proj": (self.hidden, self.key_value_width),
            "v_proj": (self.hidden, self.key_value_width),
            "o_proj": (self.heads_width, self.hidden),
            "gate_proj": (self.hidden, self.intermediate),
            "up_proj": (self.hidden, self.intermediate),
            "down_proj": (self.intermediate, self.hidden),
        }

    def adapter_parameters(self, rank: int, target_modules: Iterable[str]) -> int:
        """Return the number of weights in LoRA matrices of this rank."""
        linears = self.linears()
        return self.layers * rank * sum(sum(linears[name]) for name in target_modules if name in linears)


@dataclass(frozen=True)
class Footprint:
    """What a training method takes for one example."""

    # Sequences that go through the model together: 2 where two answers are compared.
    sequences: int = 1
    # Whether its loss holds the logits of all tokens; otherwise it computes them in chunks.
    all_logits: bool = False


@dataclass(frozen=True)
class Estimate:
    """MiB by part."""

    weights: int
    adapter: int
    activations: int
    logits: int
    # What torch reserves beyond what is in use.
    reserve: int
    # The CUDA context and the libraries' kernels.
    cuda: int

    @property
    def total_mib(self) -> int:
        """The sum of all parts."""
        return self.weights + self.adapter + self.activations + self.logits + self.reserve + self.cuda


# Measured on one H100 with the shape of Llama 3 8B: benchmarks/memory.py; its README has the figures.
# Bytes of 16-bit activations that one block keeps per token: six of the hidden width, keys and values, and two of the
# intermediate width, and a little for the adapters.
_BLOCK_EXTRA = 1.11
# A block that is recomputed in the backward pass holds its activations and their gradients.
_RECOMPUTED = 2.15
# Layers whose inputs are on the GPU while they are copied to or from host memory.
_OFFLOADED_LAYERS = 4
# A loss in chunks computes about this many tokens at once.
_LOGIT_CHUNK_TOKENS = 512
# A loss that holds all logits has them in 16 bit, with their 32-bit copy and its gradient.
_LOGIT_BYTES = 10
_RESERVE = 0.06
_CUDA_MIB = 850
# An adapter weight: 32 bit and gradient, and two 8-bit moments.
_ADAPTER_BYTES = 4 + 4 + 2
# With several processes, each also copies its gradients to the buckets that are summed over all of them: torch's
# DistributedDataParallel, gradient_as_bucket_view, which is off by default.
_BUCKET_BYTES = 4


def estimate(
    shape: Shape,
    *,
    footprint: Footprint,
    nf4: bool,
    rank: int,
    target_modules: Iterable[str],
    micro_batch_size: int,
    longest: int,
    checkpointing: Checkpointing,
    processes: int = 1,
) -> Estimate:
    """Return the estimate for a micro-batch of `micro_batch_size` examples, padded to `longest` tokens."""
    linears = shape.linears()
    inside = shape.layers * sum(a * b for a, b in linears.values())
    embeddings = shape.vocabulary * shape.hidden * (1 if shape.tied else 2)
    norms = (2 * shape.layers + 1) * shape.hidden
    weights = inside * (NF4_BYTES if nf4 else _HALF) + (embeddings + norms) * _HALF
    trained = shape.adapter_parameters(rank, target_modules)
    tokens = micro_batch_size * longest * footprint.sequences
    kept = tokens * _HALF * shape.hidden
    block = tokens * (6 * _HALF * shape.hidden + 2 * _HALF * shape.key_value_width + 2 * _HALF * shape.intermediate)
    activations = {
        "None": shape.layers * block * _BLOCK_EXTRA,
        "Standard": shape.layers * kept + block * _RECOMPUTED,
        "Offload": _OFFLOADED_LAYERS * kept + block * _RECOMPUTED,
    }[checkpointing]
    logits = (
        tokens * shape.vocabulary * _LOGIT_BYTES
        if footprint.all_logits
        else min(tokens, _LOGIT_CHUNK_TOKENS) * shape.vocabulary * 4
    )
    adapter = trained * (_ADAPTER_BYTES + (_BUCKET_BYTES if processes > 1 else 0))
    return Estimate(
        weights=_mib(weights),
        adapter=_mib(adapter),
        activations=_mib(activations),
        logits=_mib(logits),
        reserve=_mib(_RESERVE * (weights + adapter + activations + logits)),
        cuda=_CUDA_MIB,
    )


def _mib(size: float) -> int:
    return round(size / _MIB)
