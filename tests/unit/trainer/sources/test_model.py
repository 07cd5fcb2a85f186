"""Models from a folder, a bucket and a hub: pinned in prepare, fetched later, refused when they changed."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from finetune_api.layout import JobLayout
from finetune_api.plan import HubSource, ModelPlan, Plan, S3Target
from finetune_trainer.errors import StageError
from finetune_trainer.progress.reporter import ProgressReporter
from finetune_trainer.runtime.context import Context
from finetune_trainer.runtime.sigterm import StopFlag
from finetune_trainer.sources.model import fetch_metadata, fetch_weights, opened_model
from finetune_trainer.sources.model_files import Listing, is_needed
from finetune_trainer.sources.resolved import ResolvedModel
from finetune_trainer.storage.folder import FileStore
from finetune_trainer.storage.s3 import S3Store
from tests.support import hub_server
from tests.support.hub_server import HubServer
from tests.support.s3_server import S3Server
from tests.support.trainer_job import TrainerJob

NEEDED = [
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
]


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubServer]:
    with hub_server.running(tmp_path / "hub") as server:
        yield server


def _context(job: TrainerJob, **source: Any) -> Context:
    plan = Plan.model_validate(job.plan)
    model = ModelPlan(quantization="NF4", max_sequence_length=256, **source)
    scratch = job.root / "scratch"
    scratch.mkdir(exist_ok=True)
    return Context(
        plan.model_copy(update={"model": model}),
        JobLayout("gym", "coach", "1"),
        FileStore(job.output),
        ProgressReporter("prepare", 0),
        scratch,
        0,
        StopFlag(),
    )


@pytest.fixture(params=["folder", "bucket", "hub"])
def place(request: pytest.FixtureRequest, job: TrainerJob, tiny: Path, tmp_path: Path) -> tuple[Path, Context]:
    """Return where the model's files lie, and the context that fetches them."""
    if request.param == "folder":
        folder = shutil.copytree(tiny, tmp_path / "model")
        return folder, _context(job, path=str(folder))
    if request.param == "bucket":
        s3: S3Server = request.getfixturevalue("s3")
        folder = shutil.copytree(tiny, s3.root / "fetch" / "base", dirs_exist_ok=True)
        target = S3Target(
            uri="s3://fetch/base",
            endpoint=s3.endpoint,
            force_path_style=True,
            credentials_dir=str(s3.credentials(tmp_path / "s3-keys")),
        )
        return folder, _context(job, s3=target)
    hub: HubServer = request.getfixturevalue("hub")
    folder = shutil.copytree(tiny, hub.root / "org" / "base")
    return folder, _context(job, hub=HubSource(repository="org/base", revision="main", endpoint=hub.endpoint))


def _resolved(listing: Listing) -> ResolvedModel:
    return ResolvedModel(
        revision=listing.revision, reference="base", architecture="LlamaForCausalLM", files=list(listing.files)
    )


def test_needed_files_arrive_whole(place: tuple[Path, Context]) -> None:
    folder, context = place
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    with opened_model(context) as model:
        listing = model.identified(model.listing())
        small = fetch_metadata(context, model, listing)
    assert [f.path for f in listing.files] == NEEDED
    assert (small / "config.json").read_bytes() == (folder / "config.json").read_bytes()
    whole = fetch_weights(context, _resolved(listing))
    for name in NEEDED:
        assert (whole / name).read_bytes() == (folder / name).read_bytes()


def test_ranges_are_read_without_the_rest(place: tuple[Path, Context]) -> None:
    folder, context = place
    with opened_model(context) as model:
        weights = next(f for f in model.listing().files if f.path == "model.safetensors")
        found = model.read_ranges(weights, [(0, 8), (100_000, 16)])
    data = (folder / "model.safetensors").read_bytes()
    assert found == [data[:8], data[100_000:100_016]]


@pytest.mark.parametrize("change", ["bytes", "deleted"])
def test_model_that_changed_after_prepare_is_refused(place: tuple[Path, Context], change: str) -> None:
    folder, context = place
    with opened_model(context) as model:
        resolved = _resolved(model.identified(model.listing()))
    path = folder / "config.json"
    other = path.read_bytes()[::-1]
    if change == "deleted":
        path.unlink()
    elif target := context.plan.model.s3:
        S3Store(target).put_bytes("config.json", other)  # the server keeps the ETag of what it is sent
    else:
        path.write_bytes(other)
    with pytest.raises(StageError) as caught:
        fetch_weights(context, resolved)
    assert (caught.value.exit_code, caught.value.message) == (
        66,
        "base: config.json changed after prepare checked it; do not write to a model's folder while jobs use it; "
        "delete this FineTuneJob and create it again",
    )


def _refusal(context: Context) -> tuple[int, str]:
    with pytest.raises(StageError) as caught, opened_model(context) as model:
        model.listing()
    return caught.value.exit_code, caught.value.message


def _hub(hub: HubServer, repository: str, revision: str = "main", token_file: Path | None = None) -> HubSource:
    return HubSource(
        repository=repository,
        revision=revision,
        endpoint=hub.endpoint,
        token_file=str(token_file) if token_file else None,
    )


def test_unknown_repository(job: TrainerJob, hub: HubServer) -> None:
    assert _refusal(_context(job, hub=_hub(hub, "org/none"))) == (
        66,
        f"org/none (revision main) at {hub.endpoint} was not found (RepositoryNotFoundError); "
        "check model.huggingFace.repository and revision, and set tokenSecretRef if the repository is private",
    )


def test_unknown_revision(job: TrainerJob, hub: HubServer, tiny: Path) -> None:
    shutil.copytree(tiny, hub.root / "org" / "base")
    code, message = _refusal(_context(job, hub=_hub(hub, "org/base", "v9")))
    assert code == 66
    assert message.startswith(f"org/base (revision v9) at {hub.endpoint} was not found (RevisionNotFoundError)")


def test_gated_repository_wants_a_token(job: TrainerJob, hub: HubServer, tiny: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny, hub.root / "org" / "private-base")
    assert _refusal(_context(job, hub=_hub(hub, "org/private-base"))) == (
        77,
        f"org/private-base (revision main) at {hub.endpoint} may not be read (GatedRepoError); "
        "accept its licence on the hub and set model.huggingFace.tokenSecretRef",
    )
    token = tmp_path / "hf" / "token"
    token.parent.mkdir()
    token.write_text("wrong")
    code, message = _refusal(_context(job, hub=_hub(hub, "org/private-base", token_file=token)))
    assert code == 77
    assert message.endswith('accept its licence on the hub and check the token in Secret "hf"')
    token.write_text(hub_server.TOKEN + "\n")
    with opened_model(_context(job, hub=_hub(hub, "org/private-base", token_file=token))) as model:
        assert model.listing().revision == hub_server.COMMIT


def test_prepare_downloads_no_weights_from_a_hub(job: TrainerJob, hub: HubServer, tiny: Path) -> None:
    shutil.copytree(tiny, hub.root / "org" / "base")
    job.plan["model"] = {"quantization": "NF4", "maxSequenceLength": 256} | {
        "hub": {"repository": "org/base", "revision": "main", "endpoint": hub.endpoint}
    }
    assert job.run("prepare") == 0
    ranges = [wanted for name, wanted in hub.downloads if name == "model.safetensors"]
    assert ranges
    assert None not in ranges
    assert job.result()["model"]["revision"] == hub_server.COMMIT


def test_scratch_that_is_too_small_is_reported(
    job: TrainerJob, hub: HubServer, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny, hub.root / "org" / "base")
    context = _context(job, hub=_hub(hub, "org/base"))
    with opened_model(context) as model:
        resolved = _resolved(model.identified(model.listing()))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1_000_000}))
    with pytest.raises(StageError) as caught:
        fetch_weights(context, resolved)
    assert (caught.value.exit_code, caught.value.message) == (
        64,
        "the model needs 0.0 GB and the scratch space has 0.0 GB left; raise compute.scratch.size",
    )


@pytest.mark.parametrize("path", ["pytorch_model.bin", "original/params.json", ".gitattributes", "a.gguf", "run.py"])
def test_other_files_are_left_alone(path: str) -> None:
    assert not is_needed(path)
