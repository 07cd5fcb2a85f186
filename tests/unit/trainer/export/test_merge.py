"""The merged weights are the base plus what was learned, and anything else is refused."""

import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from finetune_trainer.errors import ModelError
from finetune_trainer.export import merge
from finetune_trainer.model.base_weights import Loading
from tests.support.tensors import rewrite


class Models:
    """A tiny random Llama in one or more shards, and a random adapter of it made by PEFT."""

    def __init__(self, root: Path) -> None:
        self.base, self.adapter, self.merged = root / "base", root / "adapter", root / "merged"

    def make(self, *, rslora: bool = False, tied: bool = True, shard: str = "5GB", zero_b: bool = False) -> None:
        import torch
        from peft import LoraConfig, get_peft_model
        from transformers import LlamaConfig, LlamaForCausalLM

        torch.manual_seed(7)
        config = LlamaConfig(
            vocab_size=64,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            tie_word_embeddings=tied,
        )
        LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(self.base, max_shard_size=shard)
        (self.base / "tokenizer_config.json").write_text(json.dumps({"chat_template": "old", "eos_token": "</s>"}))
        lora = LoraConfig(r=4, lora_alpha=16, target_modules=["q_proj", "v_proj", "down_proj"], use_rslora=rslora)
        model = get_peft_model(self.load(self.base), lora)
        for name, parameter in model.named_parameters():
            if "lora_B" in name and not zero_b:
                torch.nn.init.normal_(parameter, std=0.1)
        model.save_pretrained(self.adapter)

    @staticmethod
    def load(folder: Path) -> Any:
        import torch
        from transformers import LlamaForCausalLM

        return LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)

    def merge(self, original: Path | None = None, loaded: Loading | None = None) -> dict[str, Any]:
        merge.merge(self.base, self.adapter, self.merged, original, loaded, lambda percent: None)
        weights: dict[str, Any] = self.load(self.merged).state_dict()
        return weights

    def by_peft(self) -> dict[str, Any]:
        from peft import PeftModel

        weights: dict[str, Any] = (
            PeftModel.from_pretrained(self.load(self.base), self.adapter).merge_and_unload().state_dict()
        )
        return weights


@pytest.fixture
def models(tmp_path: Path) -> Models:
    return Models(tmp_path)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("rslora", [True, False])
def test_it_equals_peft_to_the_last_f16_bit(models: Models, rslora: bool, tied: bool) -> None:
    import torch

    models.make(rslora=rslora, tied=tied)
    ours, theirs = models.merge(), models.by_peft()
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        # Both sums are made in 32 bit, in another order of operations: one unit in F16's last place.
        torch.testing.assert_close(tensor, theirs[name].half().float(), rtol=2**-10, atol=2**-24, msg=name)


def test_pieces_are_whole_rows_and_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merge, "_PIECE", 1000)
    found = list(merge.pieces((100, 48), 64))
    assert found[0] == (0, 960)
    assert found[-1][1] == 4800
    assert all(start % 192 == 0 and stop == after for (start, stop), (after, _) in itertools.pairwise(found))


def test_pieces_make_the_same_as_the_whole(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    models.make()
    whole = models.merge()
    shutil.rmtree(models.merged)
    monkeypatch.setattr(merge, "_PIECE", 100)
    for name, tensor in models.merge().items():
        # A product of fewer rows may be summed in another order.
        torch.testing.assert_close(tensor, whole[name], rtol=2**-10, atol=2**-24, msg=name)


def test_sharded_models_stay_sharded(models: Models) -> None:
    models.make(shard="20KB")
    models.merge()
    names = sorted(p.name for p in models.base.glob("model-*.safetensors"))
    assert len(names) > 1
    assert sorted(p.name for p in models.merged.glob("*.safetensors")) == names


def test_the_config_says_16_bit_and_nothing_of_quantization() -> None:
    config = {"model_type": "llama", "dtype": "bfloat16", "quantization_config": {"load_in_4bit": True}}
    assert merge.merged_config(config) == {"model_type": "llama", "torch_dtype": "float16"}


def test_the_template_of_training_replaces_the_models_own(models: Models) -> None:
    models.make()
    (models.adapter / "chat_template.jinja").write_text("trained")
    models.merge()
    assert (models.merged / "chat_template.jinja").read_text() == "trained"
    assert json.loads((models.merged / "tokenizer_config.json").read_text()) == {"eos_token": "</s>"}


def test_what_an_attempt_left_whole_is_kept(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    models.make(shard="20KB")
    write = merge._Writer._write_file
    written: list[str] = []

    def killed_at_the_second(self: Any, names: list[str], target: Path) -> None:
        if written:
            target.write_bytes(b"half")
            raise KeyboardInterrupt
        written.append(target.name.removesuffix(".part"))
        write(self, names, target)

    monkeypatch.setattr(merge._Writer, "_write_file", killed_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        models.merge()
    assert sorted(p.name for p in models.merged.glob("*.safetensors")) == sorted(written)
    before = {name: (models.merged / name).stat().st_ino for name in written}
    monkeypatch.setattr(merge._Writer, "_write_file", write)
    models.merge()
    assert {name: (models.merged / name).stat().st_ino for name in written} == before
    assert not list(models.merged.glob("*.part"))


def test_progress_ends_at_100(models: Models) -> None:
    models.make(shard="20KB")
    reported: list[int] = []
    merge.merge(models.base, models.adapter, models.merged, None, None, reported.append)
    assert reported == sorted(reported)
    assert reported[-1] == 100


def test_a_target_that_was_not_reached_stays_as_it_is(models: Models) -> None:
    models.make()
    change(models.adapter, lambda t: t.update({A_B: t[A_B] * 0}))
    merged, base = models.merge(), models.load(models.base).state_dict()
    name = "model.layers.0.self_attn.q_proj.weight"
    assert bool((merged[name] == base[name].half().float()).all())


def test_an_untrained_adapter_is_refused(models: Models) -> None:
    models.make(zero_b=True)
    with pytest.raises(ModelError, match="all its B matrices are zero"):
        models.merge()


def change(adapter: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    rewrite(adapter / "adapter_model.safetensors", edit)


A_B = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"


def test_an_adapter_of_another_model_is_refused(models: Models) -> None:
    models.make()
    change(models.adapter, lambda t: t.update({A_B: t[A_B][:8].clone()}))
    with pytest.raises(ModelError, match="it belongs to another model"):
        models.merge()


def test_an_adapter_with_a_layer_too_many_is_refused(models: Models) -> None:
    models.make()
    change(
        models.adapter,
        lambda t: t.update({k.replace("layers.0", "layers.9"): v.clone() for k, v in t.items() if "layers.0" in k}),
    )
    with pytest.raises(ModelError, match=r"layers\.9.*which is not in the model's weights"):
        models.merge()


def test_what_is_no_lora_matrix_is_refused(models: Models) -> None:
    models.make()
    change(models.adapter, lambda t: t.update({"base_model.model.lm_head.weight": t[A_B].clone()}))
    with pytest.raises(ModelError, match="is not a LoRA matrix"):
        models.merge()


def test_values_beyond_f16_are_refused(models: Models) -> None:
    models.make()
    change(models.adapter, lambda t: t.update({A_B: t[A_B] * 1e7}))
    with pytest.raises(ModelError, match="outside the range of F16"):
        models.merge()


def test_a_change_that_rounding_loses_is_refused(models: Models) -> None:
    models.make()
    change(models.adapter, lambda t: t.update({name: t[name] * 1e-9 for name in t if "lora_B" in name}))
    with pytest.raises(ModelError, match="rounding removed what was learned"):
        models.merge()


def test_a_weight_whose_change_rounding_loses_is_no_fault_beside_others(models: Models) -> None:
    models.make()
    change(models.adapter, lambda t: t.update({A_B: t[A_B] * 1e-9}))
    models.merge()
