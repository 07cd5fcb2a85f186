"""Each process takes the same number of examples of every step, or the job is refused by the name of a field."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from finetune_api import shares
from finetune_api.spec import FineTuneJobSpec
from tests.support.trainer_job import JOB
from tests.unit.api.strategies import unhurried


@pytest.mark.parametrize(
    ("method", "batch", "micro", "processes", "said"),
    [
        ("DPO", 8, None, 2, "spec.training.method DPO trains on one GPU"),
        ("SFT", 6, None, 4, "spec.training.batchSize is 6 and cannot be divided over 4 GPUs"),
        ("SFT", 2, None, 4, "spec.training.batchSize is 2 and cannot be divided over 4 GPUs"),
        ("SFT", 8, 4, 4, "spec.training.microBatchSize is 4 and does not divide 2"),
    ],
)
def test_what_cannot_be_divided_is_refused_by_name(
    method: str, batch: int, micro: int | None, processes: int, said: str
) -> None:
    refusal = shares.refusal(method, batch, micro, processes)  # type: ignore[arg-type]
    assert refusal is not None
    assert said in refusal


@pytest.mark.parametrize("method", ["SFT", "DPO", "ORPO", "KTO"])
def test_one_process_takes_everything(method: str) -> None:
    assert shares.refusal(method, 7, 2, 1) is None  # type: ignore[arg-type]


def test_a_spec_whose_batch_cannot_be_divided_is_not_valid() -> None:
    spec = JOB["spec"] | {"compute": {"accelerator": {"extendedResource": {"count": 3}}}}
    with pytest.raises(ValidationError, match=r"spec\.training\.batchSize is 8 and cannot be divided over 3 GPUs"):
        FineTuneJobSpec.model_validate(spec)
    spec["training"] = {"batchSize": 9}
    assert FineTuneJobSpec.model_validate(spec).compute.accelerator.extended_resource.count == 3


def test_the_gpus_of_all_nodes_divide_the_batch() -> None:
    spec = JOB["spec"] | {"compute": {"nodes": 3, "accelerator": {"extendedResource": {"count": 2}}}}
    with pytest.raises(ValidationError, match=r"spec\.training\.batchSize is 8 and cannot be divided over 6 GPUs"):
        FineTuneJobSpec.model_validate(spec)
    spec["training"] = {"batchSize": 12}
    assert FineTuneJobSpec.model_validate(spec).compute.gpus == 6


@unhurried
@given(st.integers(1, 64), st.none() | st.integers(1, 64), st.integers(2, 16))
def test_what_is_not_refused_is_divided_exactly(batch: int, micro: int | None, processes: int) -> None:
    if shares.refusal("SFT", batch, micro, processes) is None:
        each = shares.process_batch_size(batch, processes)
        assert each * processes == batch
        assert each >= 1
        assert micro is None or each % micro == 0
