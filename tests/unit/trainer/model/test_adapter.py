"""An earlier adapter is pinned in prepare and is where training starts."""

import json
from pathlib import Path
from typing import Any

import pytest

from finetune_api.layout import JobLayout
from finetune_api.plan import AdapterPlan, Plan
from finetune_trainer.errors import ModelError, SettingsError
from finetune_trainer.model import adapter, earlier_adapter
from finetune_trainer.model.checked import CheckedModel
from finetune_trainer.model.safetensors_header import Tensor
from finetune_trainer.progress.reporter import ProgressReporter
from finetune_trainer.runtime.context import Context
from finetune_trainer.runtime.sigterm import StopFlag
from finetune_trainer.sources.resolved import ModelFile, ResolvedModel
from finetune_trainer.storage.folder import FileStore
from tests.support import adapters
from tests.support.trainer_job import TrainerJob

RUN_ID = "a" * 64


def _model(*, packed: bool = False, reference: str = "tiny") -> CheckedModel:
    file = ModelFile(path="model.safetensors", size_bytes=1, identity="")
    tensors = {}
    for module, (inputs, outputs) in adapters.SHAPES.items():
        name = f"model.layers.0.{module}.weight"
        shape = (inputs * outputs // 2, 1) if packed else (outputs, inputs)
        tensors[name] = Tensor(name, file, "U8" if packed else "F16", shape, 0, 0)
    resolved = ResolvedModel(revision="r", reference=reference, architecture="LlamaForCausalLM", files=[])
    return CheckedModel(resolved, None, tensors, [])


def _context(trainer_job: TrainerJob, **place: Any) -> Context:
    plan = Plan.model_validate(trainer_job.plan)
    plan = plan.model_copy(update={"model": plan.model.model_copy(update={"adapter": AdapterPlan(**place)})})
    scratch = trainer_job.root / "scratch"
    scratch.mkdir(exist_ok=True)
    store = FileStore(trainer_job.output)
    return Context(plan, JobLayout("gym", "second", "1"), store, ProgressReporter("prepare", 0), scratch, 0, StopFlag())


def test_folder_is_pinned_and_fetched(job: TrainerJob, tmp_path: Path) -> None:
    folder = adapters.write(tmp_path / "earlier")
    context = _context(job, path=str(folder))
    found = earlier_adapter.resolve(context, _model())
    assert found is not None
    assert (found.uri, found.run_id) == (folder.as_uri(), None)
    fetched = earlier_adapter.fetch(context, found)
    assert fetched is not None
    assert (fetched / adapter.WEIGHTS).read_bytes() == (folder / adapter.WEIGHTS).read_bytes()


def test_plan_without_an_adapter_starts_afresh(job: TrainerJob) -> None:
    context = _context(job, path="/none")
    context = Context(Plan.model_validate(job.plan), *(getattr(context, n) for n in list(vars(context))[1:]))
    assert earlier_adapter.resolve(context, _model()) is None
    assert earlier_adapter.fetch(context, None) is None


def test_another_name_of_the_same_model_is_accepted(job: TrainerJob, tmp_path: Path) -> None:
    folder = adapters.write(tmp_path / "earlier", base_model_name_or_path="mirror/the-same")
    assert earlier_adapter.resolve(_context(job, path=str(folder)), _model()) is not None


def test_weights_stored_in_4_bit_have_their_shapes_packed(job: TrainerJob, tmp_path: Path) -> None:
    folder = adapters.write(tmp_path / "earlier")
    assert earlier_adapter.resolve(_context(job, path=str(folder)), _model(packed=True)) is not None
    other = adapters.write(tmp_path / "other", hidden=32)
    with pytest.raises(ModelError, match="does not fit tiny"):
        earlier_adapter.resolve(_context(job, path=str(other)), _model(packed=True))


def test_adapter_that_changed_after_prepare_is_refused(job: TrainerJob, tmp_path: Path) -> None:
    folder = adapters.write(tmp_path / "earlier")
    context = _context(job, path=str(folder))
    found = earlier_adapter.resolve(context, _model())
    path = folder / adapter.WEIGHTS
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(
        ModelError, match="changed after prepare checked it; delete this FineTuneJob and create it again"
    ):
        earlier_adapter.fetch(context, found)


def test_run_of_another_job_stays_the_one_that_prepare_saw(job: TrainerJob) -> None:
    context = _context(job, job="first")
    earlier = _finished(job, RUN_ID)
    found = earlier_adapter.resolve(context, _model())
    assert found is not None
    assert (found.run_id, found.folder) == (RUN_ID, f"gym/first/{RUN_ID}/adapter")
    assert found.uri == f"{job.output.as_uri()}/gym/first/{RUN_ID}"
    _finished(job, "b" * 64)
    fetched = earlier_adapter.fetch(context, found)
    assert fetched is not None
    assert (fetched / adapter.WEIGHTS).read_bytes() == (earlier / adapter.WEIGHTS).read_bytes()


def _finished(job: TrainerJob, run_id: str) -> Path:
    """Leave a complete run of the job "first", and return its adapter's folder."""
    run = job.output / "gym" / "first" / run_id
    folder = adapters.write(run / "adapter", base_model_name_or_path="tiny", note=run_id)
    size = (folder / adapter.WEIGHTS).stat().st_size
    manifest = {
        "manifestVersion": 2,
        "runId": run_id,
        "job": {"name": "first"},
        "model": {"revision": "r", "reference": "tiny", "architecture": "A", "files": []},
        "template": "Alpaca",
        "dataset": {"examples": 60, "supervisedTokens": 900},
        "plan": {},
        "versions": {},
        "artifacts": [],
        "files": [{"path": f"adapter/{adapter.WEIGHTS}", "sizeBytes": size, "sha256": "c" * 64}],
    }
    (run / "manifest.json").write_text(json.dumps(manifest))
    (run.parent / "latest.json").write_text(json.dumps({"manifest": f"gym/first/{run_id}/manifest.json"}))
    return folder


class _FakeModel:
    """What of a PEFT model is touched: its named parameters."""

    def __init__(self, folder: Path) -> None:
        import torch
        from safetensors.torch import load_file

        self.parameters = {
            name.replace(".weight", ".default.weight"): torch.zeros_like(tensor)
            for name, tensor in load_file(folder / adapter.WEIGHTS).items()
        }
        self.parameters["base_model.model.model.norm.weight"] = torch.ones(16)

    def named_parameters(self) -> list[tuple[str, Any]]:
        return list(self.parameters.items())


def test_training_starts_at_the_earlier_weights(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    folder = adapters.write(tmp_path / "earlier")
    model = _FakeModel(folder)
    adapter.start_from(model, folder)
    for name, tensor in load_file(folder / adapter.WEIGHTS).items():
        assert bool((model.parameters[name.replace(".weight", ".default.weight")] == tensor).all())


def test_earlier_weights_of_other_modules_are_refused(tmp_path: Path) -> None:
    model = _FakeModel(adapters.write(tmp_path / "all"))
    with pytest.raises(ModelError, match="does not have the same matrices"):
        adapter.start_from(model, adapters.write(tmp_path / "some", modules=("q_proj",)))


def test_training_that_changed_nothing_is_reported(tmp_path: Path) -> None:
    folder = adapters.write(tmp_path / "earlier")
    model = _FakeModel(folder)
    with pytest.raises(SettingsError, match="the adapter's weights are still zero"):
        adapter.check_trained(model)
    adapter.start_from(model, folder)
    adapter.check_trained(model)
    with pytest.raises(SettingsError, match="the adapter's weights are as they were"):
        adapter.check_trained(model, folder)
    next(p for n, p in model.named_parameters() if "lora_B" in n).add_(1e-3)
    adapter.check_trained(model, folder)


@pytest.mark.parametrize("matrix", ["lora_A", "lora_B"])
def test_weights_that_are_no_numbers_are_reported(tmp_path: Path, matrix: str) -> None:
    folder = adapters.write(tmp_path / "earlier")
    model = _FakeModel(folder)
    adapter.start_from(model, folder)
    assert adapter.is_finite(model)
    next(p for n, p in model.named_parameters() if matrix in n)[0, 0] = float("nan")
    assert not adapter.is_finite(model)
