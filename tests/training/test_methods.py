"""DPO, ORPO and KTO really train: they learn the preference, and the micro-batch changes nothing."""

import json
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from finetune_api.job import FineTuneJob
from finetune_api.plan import AdapterPlan, Defaults, Plan
from finetune_api.render import render
from finetune_api.training_spec import Method
from finetune_trainer import methods
from finetune_trainer.evaluation import scores
from finetune_trainer.gpu.memory_settings import MemorySettings
from finetune_trainer.methods.interface import Decision, LoadedModel, Score
from finetune_trainer.methods.kto import BinaryRow
from finetune_trainer.methods.preference import PreferenceRow
from finetune_trainer.methods.sft import SFTRow
from finetune_trainer.model import load as load_model
from local_platform.smollm2 import model_dir
from tests.support import tiny_model
from tests.support.trainer_job import JOB
from tests.training.conftest import LOADS_A_MODEL

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.training, pytest.mark.timeout(600), *LOADS_A_MODEL]
PREFERENCES: list[Method] = ["DPO", "ORPO", "KTO"]
ALL: list[Method] = ["SFT", *PREFERENCES]
MEMORY_SETTINGS = MemorySettings(2, "None")


class Losses:
    """Stands in for StepControl and remembers the losses."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def step_begins(self, done: int) -> None:
        pass

    def step_ends(self, done: int) -> Decision:
        return Decision(save=False, stop=False)

    def logged(self, done: int, loss: float) -> None:
        assert done == len(self.losses) + 1
        self.losses.append(loss)


@dataclass
class Run:
    """What one training left."""

    loaded: LoadedModel
    losses: list[float]
    history: list[dict[str, Any]]
    before: list[Score]
    after: list[Score]

    @property
    def adapter(self) -> dict[str, Any]:
        return {n: p.detach().clone() for n, p in self.loaded.model.named_parameters() if "lora_" in n}


def make_plan(method: Method, learning_rate: str, batch_size: int = 4) -> Plan:
    training = {"method": method, "batchSize": batch_size, "learningRate": learning_rate, "warmupSteps": 0}
    plan = render(
        FineTuneJob.model_validate(JOB | {"spec": JOB["spec"] | {"training": training}}), Defaults(allow_cpu=True)
    )
    return plan.model_copy(update={"model": plan.model.model_copy(update={"quantization": "None"})})


def train(
    plan: Plan,
    loaded: LoadedModel,
    rows: Sequence[Any],
    steps: Sequence[Sequence[int]],
    holdout: Sequence[Any],
    folder: Path,
    micro: int = 2,
) -> Run:
    before = scores.score(plan, loaded, holdout, lambda percent: None)
    load_model.for_training(loaded.model)
    progress, ordered = Losses(), methods.ordered(rows, steps)
    trainer = methods.build(plan, loaded, rows, ordered, progress, folder, MemorySettings(micro, "None"))  # type: ignore[arg-type]
    methods.check_batches(plan, trainer, rows, ordered[0])
    trainer.train()
    after = scores.score(plan, loaded, holdout, lambda percent: None, before)
    return Run(loaded, progress.losses, trainer.state.log_history, before, after)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.build(tmp_path_factory.mktemp("models") / "tiny")


def random_rows(method: Method, count: int = 11) -> list[Any]:
    generator = random.Random(1)

    def tokens(fewest: int, most: int) -> list[int]:
        return [generator.randrange(100, 40000) for _ in range(generator.randint(fewest, most))]

    if method == "SFT":
        return [SFTRow(i, ids := tokens(4, 12), [0, 0, *[1] * (len(ids) - 2)]) for i in range(count)]
    if method == "KTO":
        return [BinaryRow(i, tokens(3, 6), tokens(2, 9), i % 2 == 0) for i in range(count)]
    return [PreferenceRow(i, tokens(3, 6), tokens(2, 9), tokens(2, 9)) for i in range(count)]


@pytest.mark.parametrize("method", ALL)
def test_the_micro_batch_changes_nothing(tiny: Path, tmp_path: Path, method: Method) -> None:
    from torch.testing import assert_close

    plan, rows = make_plan(method, "1e-2"), random_rows(method)
    # The last step is short, and no multiple of a micro-batch.
    steps = [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]
    one, two, four = (
        train(plan, load_model.load(plan, tiny, None, MemorySettings(2, "None")), rows, steps, rows, tmp_path, micro)
        for micro in (1, 2, 4)
    )
    for other in (two, four):
        assert other.losses == pytest.approx(one.losses, rel=1e-5)
        assert_close(other.adapter, one.adapter, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("method", PREFERENCES)
def test_the_scores_are_the_losses_that_are_trained_on(tiny: Path, tmp_path: Path, method: Method) -> None:
    plan, rows = make_plan(method, "3e-1"), random_rows(method, 8)
    second = methods.ordered(rows, [[4, 5, 6, 7]])[0]
    holdout = [rows[index] for index in second]
    once = train(
        plan, load_model.load(plan, tiny, None, MemorySettings(2, "None")), rows, [[0, 1, 2, 3]], holdout, tmp_path
    )
    # The same first step, for the learning rate does not fall.
    constant = plan.training.model_copy(update={"learning_rate_schedule": "Constant"})
    twice = train(
        plan.model_copy(update={"training": constant}),
        load_model.load(plan, tiny, None, MemorySettings(2, "None")),
        rows,
        [[0, 1, 2, 3], second],
        holdout,
        tmp_path,
    )
    assert twice.losses[1] == pytest.approx(sum(score.loss for score in once.after) / 4, rel=1e-5)
    assert twice.losses[1] != pytest.approx(sum(score.loss for score in once.before) / 4, rel=1e-5)


@pytest.mark.parametrize(("method", "loss"), [("DPO", math.log(2)), ("KTO", 0.5)])
@pytest.mark.parametrize("continued", [False, True])
def test_the_reference_is_the_model_before_training(
    tiny: Path, tmp_path: Path, method: Method, loss: float, continued: bool
) -> None:
    import torch

    plan, rows = make_plan(method, "1e-2"), random_rows(method, 8)
    loaded = load_model.load(plan, tiny, None, MemorySettings(2, "None"))
    if continued:
        plan = plan.model_copy(
            update={"model": plan.model.model_copy(update={"adapter": AdapterPlan(path="/adapter")})}
        )
        torch.manual_seed(0)
        with torch.no_grad():
            for name, parameter in loaded.model.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(std=0.5)
    run = train(plan, loaded, rows, [[0, 1, 2, 3], [4, 5, 6, 7]], rows, tmp_path)
    assert run.losses[0] == pytest.approx(loss, rel=1e-6)
    assert [score.loss for score in run.before] == pytest.approx([loss] * 8)
    assert list(loaded.model.peft_config) == ["default"]


def real_rows(method: Method, tokenizer: Any, count: int) -> list[Any]:
    """Return short rows that prefer the coach's answers to a refusal."""
    lines = (ROOT / "examples/coach.jsonl").read_text().splitlines()[:count]
    refusal = [*tokenizer.encode("답할 수 없어요."), tokenizer.eos_token_id]
    made: list[Any] = []
    for number, line in enumerate(lines):
        row = json.loads(line)
        prompt = tokenizer.encode(row["instruction"])[:16]
        answer = [*tokenizer.encode(row["output"])[:20], tokenizer.eos_token_id]
        if method == "KTO":
            good = number % 2 == 0
            made.append(BinaryRow(number, prompt, answer if good else refusal, good))
        else:
            made.append(PreferenceRow(number, prompt, answer, refusal))
    return made


def margin(found: Sequence[Score]) -> float:
    good = [score.good_reward for score in found if score.good_reward is not None]
    bad = [score.bad_reward for score in found if score.bad_reward is not None]
    return sum(good) / len(good) - sum(bad) / len(bad)


@pytest.mark.parametrize("method", PREFERENCES)
def test_a_real_model_learns_what_is_preferred(tmp_path: Path, method: Method) -> None:
    plan = make_plan(method, "1e-3", batch_size=2)
    loaded = load_model.load(plan, model_dir(), None, MEMORY_SETTINGS)
    rows = real_rows(method, loaded.tokenizer, 6)
    run = train(plan, loaded, rows, [[0, 1], [2, 3]], rows[4:], tmp_path)
    assert all(map(math.isfinite, run.losses))
    # ORPO's rewards are those of one token, the others' of whole answers.
    assert margin(run.after) > margin(run.before) + (0.01 if method == "ORPO" else 0.05)
    assert any(bool(tensor.any()) for name, tensor in run.adapter.items() if "lora_B" in name)
    logged = [methods.figures(entry) for entry in run.history if "loss" in entry]
    assert all("rewardChosen" in entry for entry in logged)
