"""Base or instruct: a chat template is used only where the weights know its tokens."""

import copy
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from finetune_api.plan import DatasetPlan
from finetune_trainer.data.tokens.chat_template import ALPACA_JINJA, ChatTemplate, render_prompt
from finetune_trainer.errors import ModelError
from finetune_trainer.model.safetensors_header import read_tensors
from finetune_trainer.prepare.template_choice import FOLD_SYSTEM, Weights, choose, control_tokens, untrained_tokens
from finetune_trainer.sources.folder_model import FolderModel
from finetune_trainer.sources.model_files import ModelFiles, is_weights
from finetune_trainer.sources.resolved import ModelFile
from tests.support import tiny_model

EMBEDDINGS = "model.embed_tokens.weight"
ALPACA = ChatTemplate("Alpaca", ALPACA_JINJA)
PLAIN = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"


class _Counting:
    """Reads through another model and counts."""

    def __init__(self, model: ModelFiles) -> None:
        self._model = model
        self.bytes_read = 0
        self.files: set[str] = set()

    def read_ranges(self, file: ModelFile, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        self.bytes_read += sum(length for _, length in ranges)
        self.files.add(file.path)
        return self._model.read_ranges(file, ranges)


@pytest.fixture
def bare(tokenizer: Any) -> Any:
    own = copy.deepcopy(tokenizer)
    own.chat_template = None
    return own


def _weights(folder: Path) -> Weights:
    model = FolderModel(folder, lambda done, total: None)
    return Weights(model, read_tensors(model, [f for f in model.listing().files if is_weights(f)]))


def _changed(tmp_path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    from safetensors.torch import load_file, save_file

    folder = tiny_model.build(tmp_path / "base")
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
    return folder


def _shard(folder: Path) -> None:
    """Put the embeddings into a file of their own."""
    from safetensors.numpy import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    shards = [{n: t for n, t in tensors.items() if (n == EMBEDDINGS) is held} for held in (False, True)]
    names = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    for name, shard in zip(names, shards, strict=True):
        save_file(shard, folder / name)
    weight_map = {n: name for name, shard in zip(names, shards, strict=True) for n in shard}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (folder / "model.safetensors").unlink()


def _dataset(**members: Any) -> DatasetPlan:
    common = {"sources": [], "format": "Auto", "minimumExamples": 50, "invalidRows": "Fail", "holdoutPercent": 5}
    return DatasetPlan.model_validate({"promptTemplate": "Auto"} | common | members)


def _untrained(tokenizer: Any, folder: Path) -> list[str]:
    return untrained_tokens(tokenizer, tokenizer.chat_template, _weights(folder))


def test_trained_tokens_keep_the_chat_template(tokenizer: Any, tiny: Path) -> None:
    assert _untrained(tokenizer, tiny) == []
    assert choose(_dataset(), tokenizer, _weights(tiny), "tiny") == ChatTemplate("Model", tokenizer.chat_template)


@pytest.mark.parametrize("wanted", ["Auto", "Alpaca"])
def test_base_model_gets_alpaca(tokenizer: Any, tmp_path: Path, wanted: str) -> None:
    weights = _weights(tiny_model.build(tmp_path / "base", untrained=(2,)))
    assert choose(_dataset(promptTemplate=wanted), tokenizer, weights, "base") == ALPACA


def test_base_model_with_the_models_template_is_an_error(tokenizer: Any, tmp_path: Path) -> None:
    weights = _weights(tiny_model.build(tmp_path / "base", untrained=(2,)))
    with pytest.raises(ModelError, match=r"base is a base model: its weights were never trained on <\|im_end\|> of"):
        choose(_dataset(promptTemplate="Model"), tokenizer, weights, "base")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_zero_rows_are_seen_in_every_precision(tokenizer: Any, tmp_path: Path, dtype: str) -> None:
    def clear(tensors: dict[str, Any]) -> None:
        tensors[EMBEDDINGS] = tensors[EMBEDDINGS].to(getattr(torch, dtype))
        tensors[EMBEDDINGS][1] = 0

    import torch

    assert _untrained(tokenizer, _changed(tmp_path, clear)) == ["<|im_start|>"]


def test_rows_that_are_all_the_same_were_not_trained(tokenizer: Any, tmp_path: Path) -> None:
    def repeat(tensors: dict[str, Any]) -> None:
        tensors[EMBEDDINGS][2] = tensors[EMBEDDINGS][16]  # a token that no template writes

    assert _untrained(tokenizer, _changed(tmp_path, repeat)) == ["<|im_end|>"]


def test_the_head_of_untied_weights_is_looked_at_too(tokenizer: Any, tmp_path: Path) -> None:
    def untie(tensors: dict[str, Any]) -> None:
        tensors["lm_head.weight"] = tensors[EMBEDDINGS].clone()
        tensors["lm_head.weight"][2] = tensors["lm_head.weight"][15]

    assert _untrained(tokenizer, _changed(tmp_path, untie)) == ["<|im_end|>"]


def test_weights_stored_in_4_bit_have_their_embeddings_in_16(tokenizer: Any, tmp_path: Path) -> None:
    import torch

    def pack(tensors: dict[str, Any]) -> None:
        for name in [n for n in tensors if n.endswith("proj.weight")]:
            tensors[name] = torch.zeros((tensors[name].numel() // 2, 1), dtype=torch.uint8)
        tensors["lm_head.weight"] = torch.zeros((tensors[EMBEDDINGS].numel() // 2, 1), dtype=torch.uint8)
        tensors[EMBEDDINGS][1] = 0

    assert _untrained(tokenizer, _changed(tmp_path, pack)) == ["<|im_start|>"]


def test_only_the_rows_of_control_tokens_are_read(tokenizer: Any, tmp_path: Path) -> None:
    folder = tiny_model.build(tmp_path / "base", untrained=(2,))
    _shard(folder)
    weights = _weights(folder)
    counting = _Counting(weights.model)
    found = untrained_tokens(tokenizer, tokenizer.chat_template, Weights(counting, weights.tensors))  # type: ignore[arg-type]
    assert found == ["<|im_end|>"]
    assert counting.files == {"model-00002-of-00002.safetensors"}
    assert 0 < counting.bytes_read <= 40 * 32  # rows of 16 numbers of two bytes


def test_control_tokens_are_those_that_the_template_writes(tokenizer: Any) -> None:
    assert control_tokens(tokenizer, tokenizer.chat_template) == {1, 2}


def test_without_weights_all_tokens_count_as_trained(tokenizer: Any) -> None:
    assert choose(_dataset(promptTemplate="Model"), tokenizer, None, "m").kind == "Model"


def test_a_model_without_a_template_gets_alpaca(bare: Any, tiny: Path) -> None:
    assert choose(_dataset(), bare, _weights(tiny), "m") == ALPACA
    with pytest.raises(ModelError, match="has no chat template, as is usual for base models"):
        choose(_dataset(promptTemplate="Model"), bare, _weights(tiny), "m")


def test_a_template_that_reads_the_date_brings_that_of_training(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizer, "chat_template", "{{ date_string }}" + tokenizer.chat_template)
    jinja = choose(_dataset(), tokenizer, None, "org/model").jinja
    found = tokenizer.apply_chat_template(
        [{"role": "user", "content": "?"}], chat_template=jinja, tokenize=False, date_string="31 Dec 2099"
    )
    assert found.startswith("26 Jul 2024")


def test_values_are_in_the_template_that_is_chosen(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer, "chat_template", PLAIN + "{{ thinking }}")
    chosen = choose(_dataset(chatTemplateKwargs={"thinking": "false"}), tokenizer, None, "m")
    assert chosen.jinja == "{% set thinking = false %}" + PLAIN + "{{ thinking }}"


def test_a_template_without_a_place_for_system_messages_gets_one(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusing = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    monkeypatch.setattr(tokenizer, "chat_template", refusing + PLAIN)
    jinja = choose(_dataset(), tokenizer, None, "m").jinja
    assert render_prompt(tokenizer, jinja, "짧게", "안녕") == "<|im_start|>user\n짧게\n\n안녕<|im_end|>\n"
    assert render_prompt(tokenizer, jinja, None, "안녕") == "<|im_start|>user\n안녕<|im_end|>\n"


def test_a_template_that_moves_the_system_message_along_keeps_it_in_the_first_question(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = "{% if m['role'] == 'user' and loop.last and system is defined %}{{ system + '\n\n' }}{% endif %}"
    moving = (
        "{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] %}"
        "{% set messages = messages[1:] %}{% endif %}{% for m in messages %}"
        "<|im_start|>{{ m['role'] }}\n" + last + "{{ m['content'] }}<|im_end|>\n{% endfor %}"
    )
    monkeypatch.setattr(tokenizer, "chat_template", moving)
    jinja = choose(_dataset(), tokenizer, None, "m").jinja
    assert jinja == FOLD_SYSTEM + moving


def test_a_template_of_the_jobs_own_is_taken_as_it_is(tokenizer: Any, tiny: Path, tmp_path: Path) -> None:
    own = tmp_path / "chat.jinja"
    own.write_bytes(b"\xef\xbb\xbf" + PLAIN.replace("\n", "\r\n").encode())
    chosen = choose(_dataset(templateFile=str(own)), tokenizer, _weights(tiny), "m")
    assert chosen == ChatTemplate("Custom", PLAIN)


def test_a_template_of_the_jobs_own_may_not_write_tokens_that_were_never_trained(
    tokenizer: Any, tmp_path: Path
) -> None:
    own = tmp_path / "chat.jinja"
    own.write_text(PLAIN)
    weights = _weights(tiny_model.build(tmp_path / "base", untrained=(1,)))
    with pytest.raises(
        ModelError, match=r"m was never trained on <\|im_start\|>, which the chat template of dataset\."
    ):
        choose(_dataset(templateFile=str(own)), tokenizer, weights, "m")
