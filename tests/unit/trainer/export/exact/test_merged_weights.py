"""Every weight of a merged model is the model's plus what was learned, and any other one is found."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from finetune_trainer.export import merge
from finetune_trainer.export.exact import merged_weights
from finetune_trainer.export.rejected_file import RejectedFile
from finetune_trainer.model.adapter import WEIGHTS
from finetune_trainer.model.base_weights import Loading
from finetune_trainer.sources.model_files import SINGLE
from tests.support import adapters, tiny_model
from tests.support.tensors import rewrite

Q = "model.layers.0.self_attn.q_proj.weight"
EMBEDDING = "model.embed_tokens.weight"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tiny_model.build(tmp_path / "base")


def merged(base: Path, adapter: Path, loaded: Loading | None = None) -> Path:
    target = base.parent / "merged"
    merge.merge(base, adapter, target, None, loaded, lambda percent: None)
    return target


def check(base: Path, adapter: Path, target: Path, loaded: Loading | None = None) -> list[int]:
    told: list[int] = []
    merged_weights.check(base, adapter, target, loaded, told.append)
    return told


@pytest.mark.parametrize("config", [{}, {"use_rslora": True, "lora_alpha": 4}], ids=["plain", "rank-stabilized"])
def test_what_the_merge_makes_passes(base: Path, tmp_path: Path, config: dict[str, Any]) -> None:
    adapter = adapters.write(tmp_path / "adapter", **config)
    told = check(base, adapter, merged(base, adapter))
    assert told == sorted(told)
    assert told[-1] == 100


def test_weights_of_training_pass_against_themselves_alone(base: Path, tmp_path: Path) -> None:
    adapter = adapters.write(tmp_path / "adapter")
    loaded = Loading(precision="bf16", in_4bit=["model.layers.0.self_attn.q_proj"])
    target = merged(base, adapter, loaded)
    check(base, adapter, target, loaded)
    with pytest.raises(RejectedFile, match="with the adapter it must be"):
        check(base, adapter, target)


@pytest.mark.parametrize("factor", [0.0, 0.5, -1.0], ids=["base", "halved", "flipped"])
def test_another_share_of_what_was_learned_is_found_however_small_it_is(
    base: Path, tmp_path: Path, factor: float
) -> None:
    # Some hundredths of a step of F16, as after a few steps of training.
    small = adapters.write(tmp_path / "adapter")
    rewrite(small / WEIGHTS, lambda t: t.update({n: t[n] * 2e-3 for n in t if "lora_B" in n}))
    other = shutil.copytree(small, tmp_path / "other")
    rewrite(other / WEIGHTS, lambda t: t.update({n: t[n] * factor for n in t if "lora_B" in n}))
    # Nothing cannot be merged.
    target = merged(base, other) if factor else base
    with pytest.raises(RejectedFile, match="with the adapter it must be"):
        check(base, small, target)


@pytest.mark.parametrize("name", [Q, EMBEDDING])
def test_one_weight_that_is_off_by_one_step_is_found(base: Path, tmp_path: Path, name: str) -> None:
    import torch

    adapter = adapters.write(tmp_path / "adapter")
    target = merged(base, adapter)

    def off(tensors: dict[str, Any]) -> None:
        flat = tensors[name].view(-1)
        flat[7] = torch.nextafter(flat[7].float(), torch.tensor(9.0)).half() + flat[7].abs() * 2**-10

    rewrite(target / SINGLE, off)
    with pytest.raises(RejectedFile, match=f"weight 7 of {name} is"):
        check(base, adapter, target)


def test_a_number_that_is_none_is_found(base: Path, tmp_path: Path) -> None:
    adapter = adapters.write(tmp_path / "adapter")
    target = merged(base, adapter)
    rewrite(target / SINGLE, lambda t: t[Q].view(-1).__setitem__(3, float("nan")))
    with pytest.raises(RejectedFile, match=f"weight 3 of {Q} is nan"):
        check(base, adapter, target)


def test_a_weight_that_is_missing_is_found(base: Path, tmp_path: Path) -> None:
    adapter = adapters.write(tmp_path / "adapter")
    target = merged(base, adapter)
    rewrite(target / SINGLE, lambda t: t.pop(Q))
    with pytest.raises(RejectedFile, match="has other weights than the model"):
        check(base, adapter, target)
