"""What is evaluated through llama.cpp's C API is what llama-cpp-python's own class computes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finetune_trainer.errors import ModelError
from finetune_trainer.export.llama_cpp import api, ggml_tensor
from finetune_trainer.export.llama_cpp.api import LlamaModel
from finetune_trainer.export.llama_cpp.ggml_tensor import GGMLTensor
from tests.support import tiny_gguf

TOKENS = [int(token) for token in np.random.default_rng(1).integers(0, tiny_gguf.VOCABULARY, 40)]


@pytest.fixture(scope="module")
def f16(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_gguf.build(tmp_path_factory.mktemp("api") / "F16.gguf")


@pytest.fixture(scope="module")
def binding(f16: Path) -> Iterator[Any]:
    from llama_cpp import Llama

    model = Llama(str(f16), n_ctx=128, n_threads=1, logits_all=True, verbose=False)
    yield model
    model.close()


@pytest.mark.parametrize("batch", [512, 16])
def test_logits_at_the_positions_asked_for(
    f16: Path, binding: Any, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    monkeypatch.setattr(api, "_BATCH", batch)
    positions = [0, 3, 17, 18, 39]
    with LlamaModel(f16, len(TOKENS)) as model:
        found = [np.concatenate([part.copy() for part in model.logits(TOKENS, positions)]) for _ in range(2)]
    binding.reset()
    binding.eval(TOKENS)
    for logits in found:
        np.testing.assert_allclose(logits, binding.scores[positions], rtol=1e-3, atol=1e-3)


def test_positions_without_any_in_a_batch_yield_nothing_for_it(f16: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "_BATCH", 16)
    with LlamaModel(f16, len(TOKENS)) as model:
        assert [len(part) for part in model.logits(TOKENS, [2, 5, 33])] == [2, 1]


def test_the_greedy_answer_ends_before_the_first_stop_token_or_at_the_limit(f16: Path, binding: Any) -> None:
    binding.reset()
    wanted: list[int] = []
    for token in binding.generate(TOKENS, temp=0.0):
        wanted.append(token)
        if len(wanted) == 12:
            break
    stop = wanted[5]
    with LlamaModel(f16, len(TOKENS) + 12) as model:
        assert model.generate(TOKENS, [], 12) == wanted
        assert model.generate(TOKENS, [stop], 12) == wanted[: wanted.index(stop)]


def test_an_observer_sees_the_nodes_that_it_asks_for(f16: Path) -> None:
    asked, seen = set[str](), set[str]()

    def observe(node: GGMLTensor, ask: bool) -> bool:
        kind = ggml_tensor.operation(node)
        (asked if ask else seen).add(kind)
        return kind == "MUL_MAT" or not ask

    with LlamaModel(f16, 8, observer=observe) as model:
        list(model.logits([1, 2, 3], [2]))
    assert seen == {"MUL_MAT"}
    assert len(asked) > 1


def test_what_an_observer_raises_ends_the_evaluation_once(f16: Path) -> None:
    fail = True

    def observe(_node: GGMLTensor, _ask: bool) -> bool:
        if fail:
            raise KeyError("observer")
        return False

    with LlamaModel(f16, 8, observer=observe) as model:
        with pytest.raises(KeyError, match="observer"):
            list(model.logits([1, 2, 3], [2]))
        fail = False
        assert len(list(model.logits([1, 2, 3], [2]))) == 1


def test_a_file_that_cannot_be_loaded_is_refused_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "F16.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelError, match=r"could not load F16\.gguf: \w"):
        LlamaModel(tmp_path / "F16.gguf", 8)


def test_an_adapter_that_cannot_be_loaded_is_refused_with_the_reason(f16: Path, tmp_path: Path) -> None:
    (tmp_path / "LoRA.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelError, match=r"could not load LoRA\.gguf: \w"):
        LlamaModel(f16, 8, lora=tmp_path / "LoRA.gguf")


def test_more_tokens_than_the_context_holds_are_refused(f16: Path) -> None:
    with LlamaModel(f16, 8) as model, pytest.raises(ModelError, match=r"could not evaluate F16\.gguf"):
        list(model.logits([1] * 1000, [999]))
