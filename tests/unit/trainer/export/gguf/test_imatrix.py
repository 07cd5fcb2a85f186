"""The importance matrix holds the mean squares of what each weight matrix is multiplied with."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finetune_trainer.errors import ModelError
from finetune_trainer.export.gguf import convert as gguf_convert
from finetune_trainer.export.gguf import imatrix
from finetune_trainer.export.gguf.imatrix import ImportanceMatrix
from finetune_trainer.export.llama_cpp import api as llama_api
from finetune_trainer.methods.kto import BinaryRow
from finetune_trainer.methods.preference import PreferenceRow
from finetune_trainer.methods.sft import SFTRow
from tests.support import tiny_gguf

ROWS = [[1, 2, 3, 4, 5, 6], [7, 8, 9], [2, 40, 11, 63]]


def ignore(percent: int) -> None:
    """Nobody looks."""


@pytest.fixture(scope="module")
def f16(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_gguf.build(tmp_path_factory.mktemp("imatrix") / "F16.gguf")


@pytest.fixture(scope="module")
def matrix(f16: Path) -> ImportanceMatrix:
    return imatrix.compute(f16, ROWS, ignore)


def normalized(rows: list[list[int]]) -> Any:
    """What the first layer's attention sees of each token: its embedding over its root mean square, by the norm."""
    weights = tiny_gguf.tensors()
    seen = weights["token_embd.weight"].astype(np.float64)[np.concatenate(rows)]
    seen /= np.sqrt((seen**2).mean(axis=1, keepdims=True) + 1e-5)
    return seen * weights["blk.0.attn_norm.weight"]


def test_the_first_layers_inputs_are_the_normalized_embeddings(matrix: ImportanceMatrix) -> None:
    wanted = (normalized(ROWS) ** 2).mean(axis=0)
    for name in ("attn_q", "attn_k", "attn_v"):
        np.testing.assert_allclose(matrix.values[f"blk.0.{name}.weight"], wanted, rtol=1e-4)


def test_every_weight_matrix_of_every_layer_is_in_it_and_no_other(matrix: ImportanceMatrix) -> None:
    of_layers = {name for name in tiny_gguf.tensors() if name.startswith("blk.") and "norm" not in name}
    assert matrix.values.keys() == of_layers


def test_the_last_layer_counts_every_token_not_only_the_last(f16: Path) -> None:
    both, one = (imatrix.compute(f16, rows, ignore).values for rows in ([[5, 9]], [[5]]))
    name = "blk.1.ffn_up.weight"
    # The first token sees nothing of the second, and no mean of two squares is less than half of one of them.
    assert (both[name] >= 0.49 * one[name]).all()


def test_a_row_longer_than_a_batch_is_read_to_its_end(f16: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = [int(token) for token in np.random.default_rng(1).integers(0, tiny_gguf.VOCABULARY, 40)]
    whole = imatrix.compute(f16, [row], ignore).values
    monkeypatch.setattr(llama_api, "_BATCH", 16)
    parts = imatrix.compute(f16, [row], ignore).values
    for name, values in whole.items():
        np.testing.assert_allclose(parts[name], values, rtol=0.02, err_msg=name)


def test_of_a_mixture_each_expert_has_its_own_and_one_without_tokens_counts_all_the_same(tmp_path: Path) -> None:
    f16 = tiny_gguf.build(tmp_path / "F16.gguf", experts=4)
    rows = [[3]]
    found = imatrix.compute(f16, rows, ignore).values["blk.0.ffn_up_exps.weight"].reshape(4, tiny_gguf.WIDTH)
    unused = (found == 1).all(axis=1)
    assert unused.sum() == 2
    # Both experts of the one token see the same.
    first, second = found[~unused]
    np.testing.assert_array_equal(first, second)
    router = imatrix.compute(f16, rows, ignore).values["blk.0.ffn_gate_inp.weight"]
    np.testing.assert_allclose(first, router, rtol=1e-5)


def test_it_tells_how_far_it_is(f16: Path) -> None:
    said: list[int] = []
    imatrix.compute(f16, [[1, 2, 3], [4]], said.append)
    assert said == [75, 100]


def test_what_is_raised_while_it_computes_ends_it(f16: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_rows: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(imatrix, "_squares", interrupt)
    with pytest.raises(KeyboardInterrupt):
        imatrix.compute(f16, ROWS, ignore)


def test_a_file_that_cannot_be_loaded_is_refused(tmp_path: Path) -> None:
    (tmp_path / "F16.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelError, match=r"could not load F16\.gguf: \w"):
        imatrix.compute(tmp_path / "F16.gguf", ROWS, ignore)


def test_numbers_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    weights = tiny_gguf.tensors()
    weights["blk.0.attn_norm.weight"] = np.full(tiny_gguf.WIDTH, np.inf, np.float32)
    path = tiny_gguf.write(tmp_path / "F16.gguf", tiny_gguf.values(), weights)
    with pytest.raises(ModelError, match="are not finite numbers"):
        imatrix.compute(path, ROWS, ignore)


def log_probabilities(path: Path, rows: list[list[int]]) -> Any:
    from llama_cpp import Llama

    model = Llama(model_path=str(path), n_ctx=64, n_threads=1, logits_all=True, verbose=False)
    found = []
    for row in rows:
        model.reset()
        model.eval(row)
        logits = model.scores[: len(row)].astype(np.float64)
        logits -= logits.max(axis=1, keepdims=True)
        found.append(logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)))
    model.close()
    return np.concatenate(found)


def divergence(f16: Path, other: Path, rows: list[list[int]]) -> float:
    """Mean Kullback-Leibler divergence of what is predicted, in nats."""
    wanted, found = log_probabilities(f16, rows), log_probabilities(other, rows)
    return float((np.exp(wanted) * (wanted - found)).sum(axis=1).mean())


@pytest.mark.parametrize("kind", ["IQ3_M", "IQ4_XS", "Q3_K_M", "Q2_K"])
def test_a_file_made_with_it_is_closer_to_the_f16_file(kind: Any, f16: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(2)
    learned, other = ([random.integers(0, 64, 32).tolist() for _ in range(8)] for _ in range(2))
    gguf_convert.quantize(f16, tmp_path / "with.gguf", kind, ignore, imatrix.compute(f16, learned, ignore))
    gguf_convert.quantize(f16, tmp_path / "without.gguf", kind, ignore)
    with_it, without = (divergence(f16, tmp_path / name, other) for name in ("with.gguf", "without.gguf"))
    assert with_it < 0.9 * without


def test_types_of_less_than_four_bits_and_iq_types_need_one() -> None:
    needing = [
        kind for kind in ("Q8_0", "Q4_K_M", "Q4_K_S", "Q3_K_M", "Q2_K", "IQ4_XS", "IQ2_M") if imatrix.needed(kind)
    ]
    assert needing == ["Q3_K_M", "Q2_K", "IQ4_XS", "IQ2_M"]


def sft(length: int, token: int = 1) -> SFTRow:
    return SFTRow(0, [token] * length, [1] * length)


def test_rows_are_chosen_from_all_over_the_data() -> None:
    chosen = imatrix.choose([sft(100, token=number) for number in range(1000)])
    first = [row[0] for row in chosen]
    assert sum(map(len, chosen)) == 4096
    assert max(first) > 900
    assert len(set(first)) == len(first)


def test_few_rows_are_all_chosen_once() -> None:
    assert imatrix.choose([sft(5, 1), sft(7, 2)]) == [[1] * 5, [2] * 7]


def test_no_rows_give_none() -> None:
    assert imatrix.choose([]) == []


def test_a_long_row_leaves_room_for_others() -> None:
    assert [len(row) for row in imatrix.choose([sft(100_000), sft(10), sft(10)])] == [2048, 10, 10]


def test_of_two_answers_the_good_one_is_taken() -> None:
    rows = [PreferenceRow(0, [1], [2], [3]), BinaryRow(1, [4], [5], True)]
    assert imatrix.choose(rows) == [[1, 2], [4, 5]]
