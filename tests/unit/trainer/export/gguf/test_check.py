"""A file that says of itself what is not so is refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from finetune_trainer.errors import ModelError
from finetune_trainer.export.gguf import check as gguf_check
from finetune_trainer.export.gguf import header as gguf_header
from finetune_trainer.export.gguf.check import Expected
from tests.support import tiny_gguf

TEMPLATE = "{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}"
WANTED = Expected(
    special_ids={"bos": 1, "eos": 2, "pad": 3},
    control_ids={1, 2, 3, 4},
    chat_template=TEMPLATE,
    tokens=tiny_gguf.VOCABULARY,
    layers=2,
)
SETTINGS = tiny_gguf.values() | {
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "smollm",
    "tokenizer.ggml.tokens": [f"t{number}" for number in range(tiny_gguf.VOCABULARY)],
    "tokenizer.ggml.bos_token_id": 1,
    "tokenizer.ggml.eos_token_id": 2,
    "tokenizer.ggml.padding_token_id": 3,
    "tokenizer.chat_template": TEMPLATE,
}


def write(path: Path, weights: dict[str, Any] | None = None, **replaced: Any) -> Path:
    """Write a right file; of `replaced`, a dot in a name is two underscores, and None leaves the setting out."""
    settings = SETTINGS | {name.replace("__", "."): value for name, value in replaced.items()}
    kept = {name: value for name, value in settings.items() if value is not None}
    return tiny_gguf.write(path, kept, tiny_gguf.tensors() if weights is None else weights)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "model.gguf"


def test_a_right_file_passes(file: Path) -> None:
    write(file)
    gguf_check.check(file, "F16", WANTED, gguf_header.read(file))


@pytest.mark.parametrize(
    ("replaced", "said"),
    [
        ({"general__architecture": None}, "its general.architecture is missing"),
        ({"general__file_type": 15}, "general.file_type is 15, not 1"),
        ({"tokenizer__ggml__pre": None}, "tokenizer.ggml.pre"),
        ({"tokenizer__ggml__pre": "default"}, "tokenizer.ggml.pre"),
        ({"tokenizer__ggml__bos_token_id": 2}, "its bos token is 2, the tokenizer's is 1"),
        ({"tokenizer__ggml__eos_token_id": None}, "its eos token is none, the tokenizer's is 2"),
        ({"tokenizer__ggml__padding_token_id": 0}, "its pad token is 0, the tokenizer's is 3"),
        ({"tokenizer__ggml__eot_token_id": 9}, "end-of-turn token 9"),
        ({"tokenizer__chat_template": None}, "its chat template is not the one used in training"),
        ({"tokenizer__chat_template": TEMPLATE + " "}, "its chat template is not the one used in training"),
        ({"tokenizer__ggml__tokens": ["a"]}, "it has 1 tokens, the tokenizer has 64"),
    ],
)
def test_a_file_with_one_thing_wrong_is_refused(file: Path, replaced: dict[str, Any], said: str) -> None:
    write(file, **replaced)
    with pytest.raises(ModelError, match=said.replace(".", r"\.")):
        gguf_check.check(file, "F16", WANTED)


def test_a_tokenizer_of_another_kind_needs_no_rules_for_splitting(file: Path) -> None:
    write(file, tokenizer__ggml__model="llama", tokenizer__ggml__pre="default")
    gguf_check.check(file, "F16", WANTED)


def test_an_id_that_the_tokenizer_has_not_may_be_the_configs(file: Path) -> None:
    write(file, tokenizer__ggml__bos_token_id=7)
    gguf_check.check(file, "F16", Expected({"eos": 2}, {2}, TEMPLATE, 64, 2))


def test_padding_may_be_missing(file: Path) -> None:
    write(file, tokenizer__ggml__padding_token_id=None)
    gguf_check.check(file, "F16", WANTED)


def test_an_end_of_turn_token_of_the_tokenizer_passes(file: Path) -> None:
    write(file, tokenizer__ggml__eot_token_id=4)
    gguf_check.check(file, "F16", WANTED)


def test_a_missing_layer_is_named(file: Path) -> None:
    write(file, {name: array for name, array in tiny_gguf.tensors().items() if not name.startswith("blk.1.")})
    with pytest.raises(ModelError, match="layer 1 of 2 is missing"):
        gguf_check.check(file, "F16", WANTED)


def test_a_quantized_file_has_the_tensors_of_the_f16_file(file: Path, tmp_path: Path) -> None:
    write(file)
    weights = tiny_gguf.tensors()
    del weights["output.weight"]
    less = write(tmp_path / "less.gguf", weights)
    with pytest.raises(ModelError, match="it has 20 tensors, the F16 file has 21"):
        gguf_check.check(less, "F16", WANTED, gguf_header.read(file))
    weights["output.weight"] = tiny_gguf.tensors()["output.weight"][:32]
    other = write(tmp_path / "other.gguf", weights)
    with pytest.raises(ModelError, match=r"its tensor output\.weight differs from the F16 file's"):
        gguf_check.check(other, "F16", WANTED, gguf_header.read(file))


def test_the_folder_of_a_model_says_what_is_expected(tiny: Path) -> None:
    found = gguf_check.expected(tiny)
    assert found.special_ids["eos"] == 2
    assert found.chat_template == (tiny / "chat_template.jinja").read_text()
    assert (found.tokens, found.layers) == (49152, 1)
    assert 2 in found.control_ids


def test_a_template_may_lie_in_the_tokenizers_settings(tiny: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny, model)
    (model / "chat_template.jinja").unlink()
    settings = json.loads((model / "tokenizer_config.json").read_text())
    (model / "tokenizer_config.json").write_text(json.dumps(settings | {"chat_template": TEMPLATE}))
    assert gguf_check.expected(model).chat_template == TEMPLATE


def test_layers_of_a_model_of_text_and_images_are_those_of_its_text(tiny: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny, tmp_path / "model")
    config = json.loads((tiny / "config.json").read_text())
    config |= {"text_config": {"num_hidden_layers": 7}}
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    assert gguf_check.expected(tmp_path / "model").layers == 7


@pytest.mark.parametrize("kept", [0, 3, 20, 2000, 8000])
def test_a_file_that_is_cut_off_is_refused(kept: int, file: Path) -> None:
    data = write(file).read_bytes()
    file.write_bytes(data[:kept])
    with pytest.raises(ModelError, match=r"model\.gguf is not a complete GGUF file"):
        gguf_header.read(file)


def test_something_else_is_no_gguf_file(file: Path) -> None:
    file.write_bytes(b"<html>" * 100)
    with pytest.raises(ModelError, match="it does not start like one"):
        gguf_header.read(file)


def test_the_head_is_read_as_it_was_written(file: Path) -> None:
    write(file, some__float=0.5, some__flag=True)
    found = gguf_header.read(file)
    assert (found.values["some.float"], found.values["some.flag"]) == (0.5, True)
    assert found.arrays == {"tokenizer.ggml.tokens": 64}
    assert found.shapes["output.weight"] == (256, 64)
