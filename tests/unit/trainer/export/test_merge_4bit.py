"""Merging into weights in 4 bit: bitsandbytes' own to the last bit, or the 16-bit ones that they were made from."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from finetune_trainer.errors import ModelError
from finetune_trainer.export import merge
from finetune_trainer.model import nf4
from finetune_trainer.model.base_weights import BaseWeights, Loading, loading
from finetune_trainer.model.original_weights import check_same
from finetune_trainer.model.tensor_files import weight_files
from finetune_trainer.runtime.cpus import one_thread_per_cpu
from tests.support.tensors import rewrite

_TARGETS = ("q_proj", "v_proj", "down_proj")
_LAYER = "model.layers.1.mlp.down_proj"


class Models:
    """A tiny random Llama, the same in 4 bit by bitsandbytes, and a random adapter."""

    def __init__(self, root: Path) -> None:
        self.exact, self.rounded = root / "exact", root / "rounded"
        self.adapter, self.merged = root / "adapter", root / "merged"

    def make(self, *, skip: tuple[str, ...] = (), shard: str = "5GB", rslora: bool = False) -> None:
        import torch
        from safetensors.torch import save_file
        from transformers import LlamaConfig, LlamaForCausalLM

        torch.manual_seed(7)
        config = LlamaConfig(
            vocab_size=64,
            hidden_size=64,
            # A multiple of 64: in other rows the CPU kernel of bitsandbytes takes another block's absmax.
            intermediate_size=192,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            tie_word_embeddings=False,
        )
        LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(self.exact)
        (self.exact / "tokenizer_config.json").write_text("{}")
        self._round(skip, shard)
        tensors: dict[str, Any] = {}
        for name, weight in self.weights(self.exact).items():
            if name.split(".")[-2] in _TARGETS:
                rows, columns = weight.shape
                module = f"base_model.model.{name.removesuffix('.weight')}"
                tensors[f"{module}.lora_A.weight"] = torch.randn(4, columns) * 0.1
                tensors[f"{module}.lora_B.weight"] = torch.randn(rows, 4) * 0.1
        self.adapter.mkdir()
        save_file(tensors, self.adapter / "adapter_model.safetensors")
        settings = {"r": 4, "lora_alpha": 16, "use_rslora": rslora}
        (self.adapter / "adapter_config.json").write_text(json.dumps(settings))
        self.scale = 16 / 2 if rslora else 16 / 4

    def _round(self, skip: tuple[str, ...], shard: str) -> None:
        import torch
        from transformers import AutoModelForCausalLM, BitsAndBytesConfig

        settings = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
            llm_int8_skip_modules=["lm_head", *skip],
        )
        model = AutoModelForCausalLM.from_pretrained(
            self.exact, quantization_config=settings, dtype=torch.bfloat16, device_map={"": "cpu"}
        )
        model.save_pretrained(self.rounded, max_shard_size=shard)
        (self.rounded / "tokenizer_config.json").write_text("{}")
        self.loaded_model = model
        self.in_4bit = {name: m for name, m in model.named_modules() if type(m).__name__ == "Linear4bit"}

    @staticmethod
    def weights(folder: Path) -> dict[str, Any]:
        from safetensors.torch import load_file

        return {name: t for path in weight_files(folder) for name, t in load_file(path).items()}

    def seen(self, name: str) -> Any:
        """Return a weight as bitsandbytes computes with it."""
        from bitsandbytes import functional

        module = self.in_4bit.get(name.removesuffix(".weight"))
        if module is None:
            return self.weights(self.exact)[name]
        return functional.dequantize_4bit(module.weight.data, module.weight.quant_state)

    def expected(self, name: str, weight: Any) -> Any:
        """Return a weight with the adapter."""
        from safetensors.torch import load_file

        factors = load_file(self.adapter / "adapter_model.safetensors")
        module = f"base_model.model.{name.removesuffix('.weight')}"
        if f"{module}.lora_A.weight" not in factors:
            return weight.float().half()
        product = factors[f"{module}.lora_B.weight"] @ factors[f"{module}.lora_A.weight"]
        return (weight.float() + self.scale * product).half()

    @property
    def loaded(self) -> Loading:
        return Loading(precision="bf16", in_4bit=list(self.in_4bit))

    def assert_merged(self, weight: Callable[[str], Any]) -> None:
        import torch

        merged = self.weights(self.merged)
        assert merged.keys() == self.weights(self.exact).keys()
        for name, tensor in merged.items():
            wanted = self.expected(name, weight(name))
            torch.testing.assert_close(tensor, wanted, rtol=2**-10, atol=2**-24, msg=name)
        assert "quantization_config" not in json.loads((self.merged / "config.json").read_text())


@pytest.fixture
def models(tmp_path: Path) -> Models:
    return Models(tmp_path)


def _ignore(percent: int) -> None:
    pass


def test_what_was_loaded_in_4_bit_has_the_names_of_the_files(models: Models) -> None:
    from peft import LoraConfig, get_peft_model

    models.make(skip=(_LAYER,))
    tuned = get_peft_model(models.loaded_model, LoraConfig(r=4, target_modules=list(_TARGETS)))
    assert loading(tuned, "bf16") == models.loaded


def test_stored_weights_are_read_as_bitsandbytes_computes_with_them(models: Models) -> None:
    import torch

    models.make()
    with BaseWeights(weight_files(models.rounded), models.loaded) as read, one_thread_per_cpu() as threads:
        assert len(models.in_4bit) == 14
        for name in models.in_4bit:
            weight = read.open(f"{name}.weight", threads)
            found = weight.piece(0, weight.shape[0] * weight.shape[1]).view(weight.shape)
            assert torch.equal(found, models.seen(f"{name}.weight")), name


@pytest.mark.parametrize("shape", [(256, 192), (7, 30), (48, 40)])
@pytest.mark.parametrize("kind", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("nested", [True, False])
def test_rounding_is_that_of_bitsandbytes_to_the_last_bit(shape: tuple[int, ...], kind: str, nested: bool) -> None:
    import torch
    from bitsandbytes import functional

    torch.manual_seed(3)
    weight = (torch.randn(shape) * 0.02).to(getattr(torch, kind))
    codes, state = functional.quantize_4bit(weight, quant_type="nf4", compress_statistics=nested)
    theirs = functional.dequantize_4bit(codes, state)
    tensors = {"w": codes, **{f"w.{k}": v for k, v in state.as_dict(packed=True).items()}}
    stored = nf4.Decoder(nf4.read_state("w", tensors, tensors.__getitem__)).decode(codes.reshape(-1).numpy(), 0)
    assert torch.equal(stored.to(weight.dtype).view(shape), theirs)
    if nested:
        ours, made = nf4.quantize([lambda: weight.reshape(-1)], shape)
        assert torch.equal(nf4.Decoder(made).decode(ours, 0).to(weight.dtype).view(shape), theirs)


@pytest.mark.parametrize("rslora", [True, False])
def test_trained_from_a_4bit_repository(models: Models, rslora: bool) -> None:
    models.make(rslora=rslora)
    merge.merge(models.rounded, models.adapter, models.merged, None, models.loaded, _ignore)
    models.assert_merged(models.seen)


def test_trained_from_a_16bit_repository_is_rounded_as_on_load(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    models.make()
    monkeypatch.setattr("finetune_trainer.model.base_weights._PIECE", 1024)
    merge.merge(models.exact, models.adapter, models.merged, None, models.loaded, _ignore)
    models.assert_merged(models.seen)


def test_original_of_a_4bit_repository(models: Models) -> None:
    models.make()
    merge.merge(models.rounded, models.adapter, models.merged, models.exact, None, _ignore)
    exact = models.weights(models.exact)
    models.assert_merged(exact.__getitem__)


def test_modules_left_in_16_bit_are_taken_as_they_are(models: Models) -> None:
    models.make(skip=(_LAYER,))
    assert _LAYER not in models.in_4bit
    merge.merge(models.rounded, models.adapter, models.merged, None, models.loaded, _ignore)
    models.assert_merged(models.seen)


def test_what_describes_a_weight_may_lie_in_another_shard(models: Models) -> None:
    models.make(shard="5KB")
    weight_map = json.loads((models.rounded / "model.safetensors.index.json").read_text())["weight_map"]
    parts = [n for n in weight_map if re.search(r"\.(nested_)?(absmax|quant_map)$|quant_state", n)]
    assert any(weight_map[n] != weight_map[re.sub(r"(\.weight)\..*", r"\1", n)] for n in parts)
    merge.merge(models.rounded, models.adapter, models.merged, None, models.loaded, _ignore)
    models.assert_merged(models.seen)
    index = json.loads((models.merged / "model.safetensors.index.json").read_text())["weight_map"]
    assert index.keys() == models.weights(models.exact).keys()


def _change(folder: Path, edit: Callable[[dict[str, Any]], None]) -> Path:
    rewrite(folder / "model.safetensors", edit)
    return folder


def test_the_weights_that_were_rounded_are_accepted(models: Models) -> None:
    models.make()
    check_same(models.rounded, models.exact)


def test_weights_that_were_trained_further_are_refused(models: Models) -> None:
    import torch

    models.make()

    def train(tensors: dict[str, Any]) -> None:
        for name, tensor in tensors.items():
            if name.endswith("_proj.weight"):
                tensors[name] = tensor + 0.05 * tensor.float().std() * torch.randn(tensor.shape).to(tensor.dtype)

    with pytest.raises(ModelError, match=r"is not the model .* differs from the 4-bit weights by .*, and rounding"):
        check_same(models.rounded, _change(shutil.copytree(models.exact, models.merged), train))


def test_another_vocabulary_is_refused(models: Models) -> None:
    models.make()

    def extend(tensors: dict[str, Any]) -> None:
        tensors["model.embed_tokens.weight"] = tensors["model.embed_tokens.weight"].repeat(2, 1)

    with pytest.raises(ModelError, match=r"model\.embed_tokens\.weight has another shape"):
        check_same(models.rounded, _change(shutil.copytree(models.exact, models.merged), extend))


def test_a_weight_without_its_description_is_refused(models: Models) -> None:
    models.make()
    name = "model.layers.0.self_attn.q_proj.weight"
    _change(models.rounded, lambda t: t.pop(f"{name}.nested_absmax"))
    with pytest.raises(ModelError, match="what describes it is missing or damaged"):
        merge.merge(models.rounded, models.adapter, models.merged, None, models.loaded, _ignore)


def test_a_module_that_is_not_in_the_files_is_refused(models: Models) -> None:
    models.make()
    loaded = Loading(precision="bf16", in_4bit=["model.language.layers.0.q_proj"])
    with pytest.raises(ModelError, match=r"set spec\.export\.mergeBase to Original"):
        merge.merge(models.exact, models.adapter, models.merged, None, loaded, _ignore)
