import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_api.memory import Checkpointing, Estimate, Footprint, Shape, estimate

LLAMA_3_8B = {
    "vocab_size": 128256,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "tie_word_embeddings": False,
}
# benchmarks/memory.py on one H100, 2026-11-24: NF4, rank 16 on seven linear layers; what torch reserved, in MiB.
PLAIN, PAIRS, ALL_LOGITS = Footprint(), Footprint(sequences=2), Footprint(all_logits=True)
MEASURED: tuple[tuple[Footprint, Checkpointing, int, int, int], ...] = (
    (PLAIN, "None", 1, 256, 7122),
    (PLAIN, "None", 1, 2048, 14196),
    (PLAIN, "None", 2, 2048, 21838),
    (PLAIN, "None", 8, 256, 14658),
    (PLAIN, "None", 8, 1024, 38932),
    (PLAIN, "Standard", 1, 256, 6242),
    (PLAIN, "Standard", 2, 2048, 8224),
    (PLAIN, "Standard", 8, 1024, 10834),
    (PLAIN, "Offload", 1, 256, 6242),
    (PLAIN, "Offload", 2, 2048, 7248),
    (PLAIN, "Offload", 8, 1024, 8722),
    # benchmarks/gpu_checks.py: the same of whole runs of the train stage.
    (PAIRS, "None", 8, 726, 52188),
    (ALL_LOGITS, "None", 8, 726, 36944),
)
# And what the CUDA context took beside it.
CONTEXT = 800


def shape() -> Shape:
    found = Shape.of(LLAMA_3_8B)
    assert found is not None
    return found


def llama(mode: Checkpointing, rows: int, length: int, *, nf4: bool = True, footprint: Footprint = PLAIN) -> Estimate:
    names = list(shape().linears())
    return estimate(
        shape(),
        footprint=footprint,
        nf4=nf4,
        rank=16,
        target_modules=names,
        micro_batch_size=rows,
        longest=length,
        checkpointing=mode,
    )


@pytest.mark.parametrize(("footprint", "mode", "rows", "length", "reserved"), MEASURED)
def test_the_estimate_is_within_15_percent_of_what_was_measured(
    footprint: Footprint, mode: Checkpointing, rows: int, length: int, reserved: int
) -> None:
    assert llama(mode, rows, length, footprint=footprint).total_mib == pytest.approx(reserved + CONTEXT, rel=0.15)


def test_weights_in_16_bit_take_what_the_file_does() -> None:
    # 8.03 billion parameters, as the model card says.
    assert llama("Offload", 1, 256, nf4=False).weights * 1024 * 1024 == pytest.approx(2 * 8.03e9, rel=0.001)


def test_a_config_without_sizes_has_no_shape() -> None:
    assert Shape.of({"model_type": "mamba", "hidden_size": 768}) is None


def test_heads_may_be_wider_than_the_hidden_size_says() -> None:
    found = Shape.of(LLAMA_3_8B | {"head_dim": 256})
    assert found is not None
    assert (found.heads_width, found.key_value_width) == (32 * 256, 8 * 256)


@given(st.sampled_from(["None", "Standard", "Offload"]), st.integers(1, 16), st.integers(1, 4096))
def test_more_rows_and_longer_rows_never_take_less(mode: Checkpointing, rows: int, length: int) -> None:
    here = llama(mode, rows, length).total_mib
    assert llama(mode, rows + 1, length).total_mib >= here
    assert llama(mode, rows, length + 1).total_mib >= here


@given(st.integers(1, 16), st.integers(1, 4096))
def test_the_ways_of_checkpointing_are_in_order(rows: int, length: int) -> None:
    none, standard, offload = (llama(m, rows, length).total_mib for m in ("None", "Standard", "Offload"))
    assert none >= standard >= offload
