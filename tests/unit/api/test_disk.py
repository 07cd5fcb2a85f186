from typing import Any

import pytest

from finetune_api.disk import need
from finetune_api.job import FineTuneJob
from finetune_api.plan import Defaults
from finetune_api.render import render
from finetune_api.status import ScratchStatus

GIB = 1024
BUCKET = {"s3": {"uri": "s3://models/llama/"}}
VOLUME = {"persistentVolumeClaim": {"claimName": "models", "path": "llama"}}
# 8 GiB of files, 4 Gi parameters in 16 bit, and an adapter of 256 Mi: 1 GiB in 32 bit.
SIZES = {
    "model_bytes": 8 * 1024**3,
    "parameters": 4 * 1024**3,
    "adapter_parameters": 256 * 1024**2,
    "rows_bytes": 512 * 1024**2,
    "original_bytes": 16 * 1024**3,
}


def needed(
    model: dict[str, Any] = BUCKET, gguf: tuple[str, ...] = (), made: dict[str, Any] | None = None, **training: Any
) -> ScratchStatus:
    spec = {
        "model": model,
        "dataset": {"sources": [{"s3": {"uri": "s3://data/train.jsonl"}}]},
        "training": training,
        "export": {"gguf": list(gguf)} | (made or {}),
        "output": {"s3": {"uri": "s3://results/"}},
    }
    job = FineTuneJob.model_validate({"metadata": {"name": "a", "namespace": "b", "uid": "c"}, "spec": spec})
    return need(render(job, Defaults()), **SIZES)


def train(**how: Any) -> int:
    found = needed(**how).train_mib
    assert found is not None
    return found


def export(**how: Any) -> int:
    found = needed(**how).export_mib
    assert found is not None
    return found


def test_train_has_model_rows_two_checkpoints_and_two_adapters() -> None:
    assert train() == 8 * GIB + GIB // 2 + 2 * (GIB + GIB // 2) + 2 * GIB + GIB


def test_an_optimizer_in_32_bit_has_checkpoints_of_twice_the_size() -> None:
    assert train(optimizer="AdamW") - train() == 2 * (2 * GIB - GIB // 2)


def test_an_earlier_adapter_lies_there_too() -> None:
    assert train(model={**BUCKET, "adapter": {"s3": {"uri": "s3://old/"}}}) - train() == GIB


@pytest.mark.parametrize("gguf", [(), ("Q4_K_M",)])
def test_a_model_on_a_volume_is_not_copied(gguf: tuple[str, ...]) -> None:
    assert train() - train(model=VOLUME) == 8 * GIB
    assert export(gguf=gguf) - export(model=VOLUME, gguf=gguf) == (8 * GIB if gguf else 0)


def test_export_of_the_adapter_alone_reads_one_file_at_a_time() -> None:
    assert export() == GIB + GIB


def test_export_has_the_base_the_merged_model_and_the_f16_file_at_once() -> None:
    assert export(gguf=("F16",)) == 8 * GIB + GIB + GIB // 2 + 8 * GIB + 8 * GIB + GIB


@pytest.mark.parametrize("gguf", [("Q8_0", "Q4_K_M"), ("Q6_K", "IQ2_M", "F16")])
def test_quantized_files_come_when_the_merged_model_is_gone(gguf: tuple[str, ...]) -> None:
    assert export(gguf=gguf) == export(gguf=("F16",))


def test_a_merged_model_that_is_published_is_there_while_the_first_quantized_file_is_made() -> None:
    alone = export(gguf=("F16",))
    assert export(made={"merged": True}) == alone
    assert export(gguf=("F16",), made={"merged": True}) == alone
    assert export(gguf=("IQ2_M",), made={"merged": True}) - alone == 8 * GIB * 17 // 32
    assert export(gguf=("BF16", "IQ2_M"), made={"merged": True}) == export(gguf=("BF16",))


def test_the_adapters_gguf_is_proven_on_one_of_the_base() -> None:
    assert export(made={"loraGGUF": True}) == 8 * GIB + GIB + GIB // 2 + GIB + 8 * GIB + GIB


def test_the_adapters_gguf_may_be_under_way_while_the_model_is_merged() -> None:
    assert export(gguf=("Q8_0",), made={"loraGGUF": True}) - export(gguf=("Q8_0",)) == GIB


def test_the_original_model_is_fetched_too() -> None:
    assert export(gguf=("Q8_0",), made={"originalModel": BUCKET}) - export(gguf=("Q8_0",)) == 16 * GIB


def test_the_bf16_file_lies_beside_the_f16_file() -> None:
    assert export(gguf=("BF16", "Q8_0")) - export(gguf=("F16",)) == 8 * GIB
