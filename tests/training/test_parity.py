"""A GGUF of the trained model passes the proof; one of the base, or with an adapter gone wrong, does not."""

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from finetune_api.plan import Plan
from finetune_api.spec import GGUFType, MergeBase
from finetune_trainer.errors import ModelError
from finetune_trainer.evaluation import reference
from finetune_trainer.evaluation.reference import Reference
from finetune_trainer.export import merge
from finetune_trainer.export.gguf import convert as gguf_convert
from finetune_trainer.export.gguf import lora as lora_gguf
from finetune_trainer.export.llama_cpp.api import LlamaModel
from finetune_trainer.export.parity import check as parity_check
from finetune_trainer.export.parity.check import Figures, Rejected
from finetune_trainer.gpu.memory_settings import MemorySettings
from finetune_trainer.methods.sft import SFT
from finetune_trainer.model import adapter, base_weights
from finetune_trainer.model import load as load_model
from finetune_trainer.model.base_weights import Loading
from local_cluster.layout import cache
from local_platform.smollm2 import model_dir
from tests.training.conftest import LOADS_A_MODEL, Job

pytestmark = [pytest.mark.training, pytest.mark.timeout(900), *LOADS_A_MODEL]
# Of the reference: what is right and what is wrong differs by far more than these leave to chance.
ROWS = 8
EXPORTED: tuple[GGUFType, ...] = ("F16", "Q8_0", "Q4_K_M")
IN_16_BIT, ORIGINAL, TRAINED = "16 bit", "4 bit, original weights", "4 bit, weights of training"
RIGHT: tuple[tuple[str, GGUFType], ...] = (
    *((how, gguf_type) for how in (IN_16_BIT, ORIGINAL) for gguf_type in EXPORTED),
    (TRAINED, "F16"),
)
# Permuted rows are another module's; halved is what an export does that takes rank-stabilized LoRA of rank 4 for plain.
# Half of what was learned is too near to the whole of it where the weights are others than those of training.
WRONG: tuple[tuple[str, str, GGUFType], ...] = (
    *((how, "base", gguf_type) for how in (IN_16_BIT, ORIGINAL) for gguf_type in EXPORTED),
    *(
        (how, scrambled, gguf_type)
        for how in (IN_16_BIT, ORIGINAL)
        for scrambled, gguf_type in (("permuted", "Q8_0"), ("flipped", "Q4_K_M"))
    ),
    (IN_16_BIT, "halved", "F16"),
    (TRAINED, "base", "F16"),
    (TRAINED, "permuted", "Q8_0"),
    (TRAINED, "halved", "F16"),
)


def _scrambled(source: Path, target: Path, how: str) -> Path:
    import torch
    from safetensors.torch import load_file, save_file

    shutil.copytree(source, target)
    numbers = torch.Generator().manual_seed(1)
    tensors = load_file(target / adapter.WEIGHTS)
    for name, tensor in tensors.items():
        if "lora_B" in name:
            changed = {
                "permuted": tensor[torch.randperm(len(tensor), generator=numbers)],
                "flipped": -tensor,
                "halved": tensor / 2,
            }
            tensors[name] = changed[how].contiguous()
    save_file(tensors, target / adapter.WEIGHTS)
    return target


@dataclass
class Files:
    """GGUFs of one adapter, each made once. `in_4bit`: how it was loaded onto weights in 4 bit."""

    folder: Path
    adapter: Path
    in_4bit: Loading
    made: dict[tuple[str, MergeBase, GGUFType], Path] = field(default_factory=dict)

    def get(self, how: str, merge_base: MergeBase, gguf_type: GGUFType) -> Path:
        merge_base = "Original" if how == "base" else merge_base
        key = (how, merge_base, gguf_type)
        if key not in self.made:
            self.made[key] = self.folder / f"{'-'.join(key)}.gguf"
            if gguf_type == "F16":
                self._convert(how, merge_base, self.made[key])
            else:
                gguf_convert.quantize(self.get(how, merge_base, "F16"), self.made[key], gguf_type, lambda percent: None)
        return self.made[key]

    def _convert(self, how: str, merge_base: MergeBase, target: Path) -> None:
        merged = self.folder / "merged"
        if how == "base":
            shutil.copytree(model_dir(), merged)
        else:
            folder = self.folder / f"adapter-{how}"
            if not folder.exists():
                _ = shutil.copytree(self.adapter, folder) if how == "right" else _scrambled(self.adapter, folder, how)
            loaded = self.in_4bit if merge_base == "Trained" else None
            merge.merge(model_dir(), folder, merged, None, loaded, lambda percent: None)
        gguf_convert.convert(merged, target, "F16", self.folder, lambda percent: None)
        shutil.rmtree(merged)


@dataclass
class Case:
    """What export would compare with."""

    reference: Reference
    trained_in_4bit: bool
    merge_base: MergeBase

    def check(self, path: Path, gguf_type: GGUFType, lora: Path | None = None) -> Figures:
        return parity_check.check(
            path,
            gguf_type,
            self.reference,
            None,
            trained_in_4bit=self.trained_in_4bit,
            merge_base=self.merge_base,
            lora=lora,
        )


def _written(job: Job) -> Reference:
    found = Reference.model_validate_json((job.run / "prepared" / reference.NAME).read_text())
    return found.model_copy(update={"rows": found.rows[:ROWS]})


@pytest.fixture(scope="module")
def on_4bit(trained: Job) -> tuple[Reference, Loading]:
    """What the adapter makes of the model in 4 bit."""
    plan = json.loads((trained.root / "plan.json").read_text())
    plan["model"]["quantization"] = "NF4"
    loaded = load_model.load(Plan.model_validate(plan), model_dir(), None, MemorySettings(1, "None"))
    rows = reference.choose(SFT().read(trained.run / "prepared/holdout.parquet"), [])[:ROWS]
    base = reference.log_probabilities(loaded, rows, lambda percent: None)
    adapter.start_from(loaded.model, trained.run / "adapter")
    compared = reference.compare(loaded, rows, base, lambda percent: None)
    found = Reference(prompts=[], rows=compared, parameters=134_515_008)
    return found, base_weights.loading(loaded.model, loaded.precision)


@pytest.fixture(scope="module")
def files(exported: Job, on_4bit: tuple[Reference, Loading], tmp_path_factory: pytest.TempPathFactory) -> Files:
    made = Files(tmp_path_factory.mktemp("files"), exported.run / "adapter", on_4bit[1])
    for gguf_type in EXPORTED:
        (made.made["right", "Original", gguf_type],) = (exported.run / "gguf").glob(f"*-{gguf_type}.gguf")
    return made


@pytest.fixture(autouse=True)
def converter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMA_CPP_DIR", str(cache() / "llama.cpp"))


def case(training: str, trained: Job, on_4bit: tuple[Reference, Loading]) -> Case:
    if training == IN_16_BIT:
        return Case(_written(trained), False, "Original")
    return Case(on_4bit[0], True, "Original" if training == ORIGINAL else "Trained")


@pytest.mark.parametrize(("training", "gguf_type"), RIGHT)
def test_the_trained_model_passes(
    training: str, gguf_type: GGUFType, trained: Job, on_4bit: tuple[Reference, Loading], files: Files
) -> None:
    right = case(training, trained, on_4bit)
    figures = right.check(files.get("right", right.merge_base, gguf_type), gguf_type)
    assert figures.slope == pytest.approx(1, abs=0.3)


@pytest.mark.parametrize(("training", "how", "gguf_type"), WRONG)
def test_another_model_is_refused(
    training: str, how: str, gguf_type: GGUFType, trained: Job, on_4bit: tuple[Reference, Loading], files: Files
) -> None:
    right = case(training, trained, on_4bit)
    with pytest.raises(Rejected, match="is not the model that was trained") as refused:
        right.check(files.get(how, right.merge_base, gguf_type), gguf_type)
    assert refused.value.figures.tokens > 400


@pytest.mark.parametrize("how", ["right", "flipped"])
def test_the_adapter_alone_is_judged_on_the_base(trained: Job, files: Files, how: str, tmp_path: Path) -> None:
    folder = files.adapter if how == "right" else _scrambled(files.adapter, tmp_path / "adapter", how)
    lora_gguf.convert(model_dir(), folder, tmp_path / "lora.gguf", tmp_path)
    base, right = files.get("base", "Original", "F16"), Case(_written(trained), False, "Original")
    if how == "right":
        right.check(base, "F16", lora=tmp_path / "lora.gguf")
    else:
        with pytest.raises(Rejected, match="the LoRA GGUF is not the model that was trained"):
            right.check(base, "F16", lora=tmp_path / "lora.gguf")


def test_the_file_splits_the_probes_as_the_models_own_tokenizer(trained: Job, files: Files) -> None:
    written = _written(trained)
    wrong = [probe.model_copy(update={"input_ids": [*probe.input_ids, 1]}) for probe in written.probes[1:2]]
    with LlamaModel(files.get("right", "Original", "F16"), 8) as model:
        parity_check.check_tokens(model, written.prompts, written.probes, None)
        with pytest.raises(ModelError, match="splits the test text with emoji into other tokens"):
            parity_check.check_tokens(model, [], wrong, None)
