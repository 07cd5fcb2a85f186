"""Files of llama.cpp's own converters: they pass the check, and an adapter beside the base is the merged model."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finetune_trainer.errors import ModelError
from finetune_trainer.export.exact import gguf_weights
from finetune_trainer.export.gguf import (
    check as gguf_check,
)
from finetune_trainer.export.gguf import (
    convert as gguf_convert,
)
from finetune_trainer.export.gguf import (
    header as gguf_header,
)
from finetune_trainer.export.gguf import (
    imatrix,
)
from finetune_trainer.export.gguf import (
    lora as lora_gguf,
)
from finetune_trainer.export.llama_cpp.api import file_type
from finetune_trainer.model.adapter import WEIGHTS
from local_cluster.layout import cache
from tests.support import adapters, tiny_gguf, tiny_model
from tests.support.tensors import rewrite

pytestmark = [pytest.mark.training, pytest.mark.timeout(300), pytest.mark.usefixtures("converter")]
TOKENS = list(range(100, 132))


def ignore(percent: int) -> None:
    """Nobody looks."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gguf")


@pytest.fixture(scope="module")
def converter() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLAMA_CPP_DIR", str(cache() / "llama.cpp"))
        yield


@pytest.fixture(scope="module")
def base(folder: Path) -> Path:
    return tiny_model.build(folder / "base")


@pytest.fixture(scope="module")
def f16(folder: Path, base: Path, converter: None) -> Path:
    said: list[int] = []
    gguf_convert.convert(base, folder / "F16.gguf", "F16", folder, said.append)
    assert said[-1] == 100
    return folder / "F16.gguf"


@pytest.fixture(scope="module")
def merged(folder: Path, base: Path, converter: None) -> Path:
    """A GGUF of the model with the adapter of `adapter` merged by hand."""
    from safetensors.numpy import load_file, save_file

    target = tiny_model.build(folder / "merged")
    weights, matrices = load_file(base / "model.safetensors"), load_file(adapter(folder / "adapter") / WEIGHTS)
    for name in (name for name in matrices if ".lora_A." in name):
        weight = name.removeprefix("base_model.model.").replace(".lora_A.", ".")
        delta = matrices[name.replace(".lora_A.", ".lora_B.")] @ matrices[name]
        weights[weight] = (weights[weight] + delta).astype(np.float16)
    (target / "model.safetensors").unlink()
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    gguf_convert.convert(target, folder / "merged.gguf", "F16", folder, ignore)
    return folder / "merged.gguf"


def adapter(folder: Path, **config: Any) -> Path:
    """Write an adapter whose B A is added as it is."""
    adapters.write(folder, **config)
    rewrite(folder / WEIGHTS, lambda tensors: tensors.update({n: 4 * t for n, t in tensors.items() if "lora_B" in n}))
    return folder


def logits(path: Path, lora: Path | None = None) -> Any:
    from llama_cpp import Llama

    lora_path = None if lora is None else str(lora)
    model = Llama(str(path), n_ctx=64, n_threads=1, logits_all=True, lora_path=lora_path, verbose=False)
    model.eval(TOKENS)
    found = model.scores[: len(TOKENS)].astype(np.float64)
    model.close()
    return found


# Both scale by 1: alpha / r of 16, and alpha / sqrt(r) of 4 and 16.
@pytest.mark.parametrize("config", [{}, {"use_rslora": True, "lora_alpha": 4}], ids=["plain", "rank-stabilized"])
def test_the_adapters_gguf_beside_the_base_is_the_merged_model(
    config: dict[str, Any], folder: Path, base: Path, f16: Path, merged: Path, tmp_path: Path
) -> None:
    lora_gguf.convert(base, adapter(tmp_path / "adapter", **config), tmp_path / "lora.gguf", tmp_path)
    wanted, alone, found = logits(merged), logits(f16), logits(f16, tmp_path / "lora.gguf")
    learned = np.abs(wanted - alone).max()
    assert np.abs(found - wanted).max() < 0.02 * learned


def test_a_converted_file_passes_the_check_and_its_quantized_one_too(base: Path, f16: Path, tmp_path: Path) -> None:
    wanted = gguf_check.expected(base)
    head = gguf_check.check(f16, "F16", wanted)
    assert gguf_weights.check(f16, base, lambda percent: None) == []
    small = tmp_path / "Q4_K_M.gguf"
    gguf_convert.quantize(f16, small, "Q4_K_M", ignore)
    gguf_check.check(small, "Q4_K_M", wanted, head)


def test_a_file_of_another_template_is_refused(base: Path, f16: Path, tmp_path: Path) -> None:
    other = tiny_model.build(tmp_path / "other")
    (other / "chat_template.jinja").write_text("{{ messages[0].content }}")
    with pytest.raises(ModelError, match="its chat template is not the one used in training"):
        gguf_check.check(f16, "F16", gguf_check.expected(other))


def test_bf16_is_converted(base: Path, folder: Path, tmp_path: Path) -> None:
    gguf_convert.convert(base, tmp_path / "BF16.gguf", "BF16", tmp_path, ignore)
    gguf_check.check(tmp_path / "BF16.gguf", "BF16", gguf_check.expected(base))


def test_iq2_m_is_made_with_a_matrix(tmp_path: Path) -> None:
    source = tiny_gguf.build(tmp_path / "F16.gguf")
    matrix = imatrix.compute(source, [list(range(tiny_gguf.VOCABULARY))], ignore)
    gguf_convert.quantize(source, tmp_path / "IQ2_M.gguf", "IQ2_M", ignore, matrix)
    found = gguf_header.read(tmp_path / "IQ2_M.gguf")
    assert found.values["general.file_type"] == file_type("IQ2_M")
    assert (tmp_path / "IQ2_M.gguf").stat().st_size < source.stat().st_size / 3
