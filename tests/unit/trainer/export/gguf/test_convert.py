"""Every type is made of one F16 file, and nothing that is not whole gets its name."""

import os
from pathlib import Path
from typing import get_args

import pytest

from finetune_api.spec import GGUFType
from finetune_trainer.errors import ModelError, SettingsError
from finetune_trainer.export.gguf import convert as gguf_convert
from finetune_trainer.export.gguf import header as gguf_header
from finetune_trainer.export.gguf import imatrix
from finetune_trainer.export.gguf.imatrix import ImportanceMatrix
from finetune_trainer.export.llama_cpp import api as llama_api
from tests.support import tiny_gguf

QUANTIZED: list[GGUFType] = [kind for kind in get_args(GGUFType) if not gguf_convert.is_converted(kind)]
# llama.cpp computes tables for seconds before the first tensor of this type; it is in tests/training.
SLOW = "IQ2_M"


@pytest.fixture(scope="module")
def f16(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_gguf.build(tmp_path_factory.mktemp("gguf") / "F16.gguf")


@pytest.fixture(scope="module")
def matrix(f16: Path) -> ImportanceMatrix:
    return imatrix.compute(f16, [list(range(32))], lambda percent: None)


def quantize(f16: Path, target: Path, kind: GGUFType, matrix: ImportanceMatrix) -> list[int]:
    said: list[int] = []
    gguf_convert.quantize(f16, target, kind, said.append, matrix if imatrix.needed(kind) else None)
    return said


def test_every_type_but_the_16_bit_ones_is_quantized() -> None:
    assert len(QUANTIZED) == 11


@pytest.mark.parametrize("kind", [kind for kind in QUANTIZED if kind != SLOW])
def test_a_file_says_its_type_and_has_all_tensors(
    kind: GGUFType, f16: Path, matrix: ImportanceMatrix, tmp_path: Path
) -> None:
    quantize(f16, tmp_path / "small.gguf", kind, matrix)
    made = gguf_header.read(tmp_path / "small.gguf")
    assert made.values["general.file_type"] == llama_api.file_type(kind)
    assert made.shapes == gguf_header.read(f16).shapes


def test_more_bits_make_a_larger_file(f16: Path, matrix: ImportanceMatrix, tmp_path: Path) -> None:
    order: list[GGUFType] = ["Q2_K", "IQ3_M", "IQ4_XS", "Q5_K_S", "Q6_K", "Q8_0"]
    sizes = []
    for kind in order:
        quantize(f16, tmp_path / kind, kind, matrix)
        sizes.append((tmp_path / kind).stat().st_size)
    assert sizes == sorted(set(sizes))


@pytest.mark.parametrize("width", [16, 96])
@pytest.mark.parametrize("kind", ["Q4_K_M", "IQ3_M"])
def test_rows_that_are_no_multiple_of_256_work_too(width: int, kind: GGUFType, tmp_path: Path) -> None:
    source = tiny_gguf.build(tmp_path / "F16.gguf", width)
    found = imatrix.compute(source, [list(range(32))], lambda percent: None)
    quantize(source, tmp_path / "small.gguf", kind, found)
    assert imatrix.compute(tmp_path / "small.gguf", [[1, 2, 3]], lambda percent: None).values


def test_quantizing_tells_how_far_it_is(f16: Path, matrix: ImportanceMatrix, tmp_path: Path) -> None:
    said = quantize(f16, tmp_path / "small.gguf", "IQ3_M", matrix)
    assert said == sorted(set(said))
    assert said[-1] == 100


def test_the_quantizers_log_gives_the_percentage_of_tensors_done() -> None:
    progress = gguf_convert.QuantizerProgress()
    progress.listen(b"[  12/ 272] blk.1.attn_k.weight - [ 576, 192], type = f16, ")
    assert progress.percent == 4
    progress.listen(b"converting to q4_K .. ")
    assert progress.percent == 4


def test_an_iq_type_without_its_matrix_is_refused_with_the_reason(f16: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"to IQ2_M: .*requires an imatrix"):
        gguf_convert.quantize(f16, tmp_path / "small.gguf", "IQ2_M", lambda percent: None)
    assert list(tmp_path.iterdir()) == []


def test_what_interrupts_leaves_no_file(f16: Path, tmp_path: Path) -> None:
    def interrupt(percent: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        gguf_convert.quantize(f16, tmp_path / "small.gguf", "Q8_0", interrupt)
    assert not (tmp_path / "small.gguf").exists()


def converter(folder: Path, program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "convert_hf_to_gguf.py").write_text(program)
    monkeypatch.setenv("LLAMA_CPP_DIR", str(folder))


def test_converting_tells_how_far_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = """import sys
for percent in (0, 40, 40, 100):
    sys.stderr.write(f"\\rWriting: {percent:3d}%|##  | 1.0M/2.0M")
open(sys.argv[3], "w").write(sys.argv[5])
"""
    converter(tmp_path, program, monkeypatch)
    said: list[int] = []
    gguf_convert.convert(tmp_path, tmp_path / "BF16.gguf", "BF16", tmp_path, said.append)
    assert said == [0, 40, 100]
    assert (tmp_path / "BF16.gguf").read_text() == "bf16"


def test_what_interrupts_ends_the_converter_and_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = """import os, sys, time
open(sys.argv[3], "w").write(str(os.getpid()))
sys.stderr.write("\\rWriting:   1%|\\rWriting:   2%|")
sys.stderr.flush()
time.sleep(600)
"""
    converter(tmp_path, program, monkeypatch)
    processes: list[int] = []

    def interrupt(percent: int) -> None:
        processes.append(int((tmp_path / ".F16.gguf.part").read_text()))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        gguf_convert.convert(tmp_path, tmp_path / "F16.gguf", "F16", tmp_path, interrupt)
    with pytest.raises(ProcessLookupError):
        os.kill(processes[0], 0)
    assert not list(tmp_path.glob("*F16*"))


def test_a_model_that_cannot_be_converted_is_refused_with_the_converters_last_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = "import sys; open(sys.argv[3], 'w'); print('x'); sys.exit('Model Foo is not supported')"
    converter(tmp_path, program, monkeypatch)
    with pytest.raises(ModelError, match="could not convert the model: Model Foo is not supported"):
        gguf_convert.convert(tmp_path, tmp_path / "F16.gguf", "F16", tmp_path, lambda percent: None)
    assert not list(tmp_path.glob("*F16*"))


def test_without_a_converter_the_sentence_says_where_to_get_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LLAMA_CPP_DIR", raising=False)
    with pytest.raises(SettingsError, match="hack/llama-cpp source"):
        gguf_convert.convert(tmp_path, tmp_path / "F16.gguf", "F16", tmp_path, lambda percent: None)
