"""docs/models-and-gpus.md: its estimates are those of the code, and its models have the sizes they are known for."""

import re
from pathlib import Path

import pytest

from finetune_api.job import FineTuneJob
from finetune_api.memory import Footprint, Shape, estimate
from finetune_api.plan import Defaults, Plan
from finetune_api.render import render
from finetune_trainer.model import memory_fit
from tests.support.trainer_job import JOB

PAGE = (Path(__file__).resolve().parents[4] / "docs/models-and-gpus.md").read_text()
# From each model's config.json: hidden, intermediate, layers, heads, key-value heads, head, vocabulary, tied; and its
# parameters in all, as the hub counts them.
MODELS: dict[str, tuple[tuple[int, int, int, int, int, int, int, bool], int]] = {
    "SmolLM2 135M": ((576, 1536, 30, 9, 3, 64, 49152, True), 134_515_008),
    "Llama 3.2 1B": ((2048, 8192, 16, 32, 8, 64, 128256, True), 1_235_814_400),
    "Qwen2.5 1.5B": ((1536, 8960, 28, 12, 2, 128, 151936, True), 1_543_714_304),
    "Llama 3.2 3B": ((3072, 8192, 28, 24, 8, 128, 128256, True), 3_212_749_824),
    "Qwen3 4B": ((2560, 9728, 36, 32, 8, 128, 151936, True), 4_022_468_096),
    "Mistral 7B v0.3": ((4096, 14336, 32, 32, 8, 128, 32768, False), 7_248_023_552),
    "Llama 3 8B": ((4096, 14336, 32, 32, 8, 128, 128256, False), 8_030_261_248),
    "Qwen3 8B": ((4096, 12288, 36, 32, 8, 128, 151936, False), 8_190_735_360),
    "Qwen3 14B": ((5120, 17408, 40, 40, 8, 128, 151936, False), 14_768_307_200),
    "Qwen3 32B": ((5120, 25600, 64, 64, 8, 128, 151936, False), 32_762_123_264),
    "Llama 3.3 70B": ((8192, 28672, 80, 64, 8, 128, 128256, False), 70_553_706_496),
}
# Rows of 512 tokens, 8 a step.
STEPS = [[512] * 8]
# The cells that were seen on a card: (model, column).
MEASURED = {("Llama 3 8B", "80 GB (79)"), ("Llama 3 8B", "141 GB (139)")}


def shape(model: str) -> Shape:
    hidden, intermediate, layers, heads, key_value, head, vocabulary, tied = MODELS[model][0]
    return Shape(hidden, intermediate, layers, heads * head, key_value * head, vocabulary, tied)


def table(heading: str) -> list[dict[str, str]]:
    """Return the rows of the first table below a heading, by the names of its columns."""
    lines = PAGE.split(f"## {heading}\n", 1)[1].splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("|"))
    cells = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        cells.append([cell.strip() for cell in line.strip("|").split("|")])
    return [dict(zip(cells[0], row, strict=True)) for row in cells[2:]]


@pytest.fixture(scope="module")
def plan() -> Plan:
    return render(FineTuneJob.model_validate(JOB), Defaults())


@pytest.mark.parametrize("model", MODELS)
def test_a_model_has_the_parameters_that_it_is_known_for(model: str) -> None:
    found, linears = shape(model), shape(model).linears()
    counted = found.layers * sum(a * b for a, b in linears.values())
    counted += found.vocabulary * found.hidden * (1 if found.tied else 2)
    assert counted == pytest.approx(MODELS[model][1], rel=0.001)


def least(model: str, *, nf4: bool) -> int:
    return estimate(
        shape(model),
        footprint=Footprint(),
        nf4=nf4,
        rank=16,
        target_modules=list(shape(model).linears()),
        micro_batch_size=1,
        longest=2048,
        checkpointing="Offload",
    ).total_mib


def test_every_model_is_in_both_tables_of_memory() -> None:
    for heading in ("Memory at least", "What a card is trained with"):
        assert [row["Model"] for row in table(heading)] == list(MODELS)


@pytest.mark.parametrize("model", MODELS)
def test_the_least_memory_is_estimated_as_prepare_does(model: str) -> None:
    row = next(row for row in table("Memory at least") if row["Model"] == model)
    for column, nf4 in (("NF4 (default)", True), ("16 bit", False)):
        assert row[column].split(",")[0] == f"{least(model, nf4=nf4) / 1024:.1f} e"


@pytest.mark.parametrize("model", MODELS)
def test_a_card_is_trained_with_what_train_would_choose(model: str, plan: Plan) -> None:
    row = next(row for row in table("What a card is trained with") if row["Model"] == model)
    for column, cell in row.items():
        if (free := re.search(r"\(([\d.]+)\)", column)) is not None:
            mark = "m" if (model, column) in MEASURED else "e"
            assert cell == f"{chosen(plan, model, float(free[1]))} {mark}", column


def chosen(plan: Plan, model: str, free_gib: float) -> str:
    """Return the cell of the second table: rows at a time and the way of checkpointing."""
    free = round(free_gib * 1024)
    settings = memory_fit.first_settings(plan, shape(model), STEPS, free)
    if memory_fit.estimate(plan, shape(model), settings, STEPS).total_mib > free * (1 - memory_fit._MARGIN):
        return "no"
    return f"{settings.micro_batch_size} {settings.gradient_checkpointing}"
