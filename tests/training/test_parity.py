"""A GGUF of the trained model passes the proof; one of the base, or with an adapter gone wrong, does not."""

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from finetune_api.plan import Plan
from finetune_api.spec import GGUFType, MergeBase
from finetune_trainer.evaluation import reference
from finetune_trainer.evaluation.reference import Reference
from finetune_trainer.export import merge
from finetune_trainer.export.exact import lora_tensors
from finetune_trainer.export.gguf import convert as gguf_convert
from finetune_trainer.export.gguf import lora as lora_gguf
from finetune_trainer.export.llama_cpp.api import LlamaModel
from finetune_trainer.export.parity import check as parity_check
from finetune_trainer.export.parity import limits as parity_limits
from finetune_trainer.export.parity.figures import Figures
from finetune_trainer.export.parity.limits import Limits
from finetune_trainer.export.rejected_file import RejectedFile
from finetune_trainer.gpu.memory_settings import MemorySettings
from finetune_trainer.methods.sft import SFT
from finetune_trainer.model import adapter, base_weights
from finetune_trainer.model import load as load_model
from finetune_trainer.model.base_weights import Loading
from local_cluster.layout import cache
from local_platform.smollm2 import model_dir
from tests.support.tensors import rewrite
from tests.training.conftest import LOADS_A_MODEL, Job

pytestmark = [pytest.mark.training, pytest.mark.timeout(900), *LOADS_A_MODEL]
# Of the reference: what is right and what is wrong differs by far more than these leave to chance.
ROWS = 8
EXPORTED: tuple[GGUFType, ...] = ("F16", "Q8_0", "Q4_K_M")
IN_16_BIT, ORIGINAL, TRAINED = "16 bit", "4 bit, original weights", "4 bit, weights of training"
# The other files of ORIGINAL are those of IN_16_BIT.
RIGHT: tuple[tuple[str, GGUFType], ...] = (
    *((IN_16_BIT, gguf_type) for gguf_type in EXPORTED),
    (ORIGINAL, "F16"),
    (TRAINED, "F16"),
)
# Permuted rows are another module's; halved is what an export does that takes rank-stabilized LoRA of rank 4 for plain.
WRONG: tuple[tuple[str, str, GGUFType], ...] = (
    *((IN_16_BIT, "base", gguf_type) for gguf_type in EXPORTED),
    (IN_16_BIT, "permuted", "Q8_0"),
    (IN_16_BIT, "flipped", "Q4_K_M"),
    *((how, "halved", "F16") for how in (IN_16_BIT, ORIGINAL, TRAINED)),
    (ORIGINAL, "base", "F16"),
    (ORIGINAL, "permuted", "F16"),
    (TRAINED, "base", "F16"),
)


def _scrambled(source: Path, target: Path, how: str) -> Path:
    import torch

    shutil.copytree(source, target)
    numbers = torch.Generator().manual_seed(1)

    def scramble(tensors: dict[str, Any]) -> None:
        for name, tensor in tensors.items():
            if "lora_B" in name:
                changed = {
                    "permuted": tensor[torch.randperm(len(tensor), generator=numbers)],
                    "flipped": -tensor,
                    "halved": tensor / 2,
                }
                tensors[name] = changed[how].contiguous()

    rewrite(target / adapter.WEIGHTS, scramble)
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
    """What export would compare with, without any proof of the weights."""

    reference: Reference
    trained_in_4bit: bool
    merge_base: MergeBase
    files: Files

    def check(self, path: Path, gguf_type: GGUFType, lora: Path | None = None) -> Figures:
        """Hold a file against what it must be: the trained model, or the right F16 file."""
        other = parity_limits.are_other_weights(self.trained_in_4bit, self.merge_base, beside_base=lora is not None)
        if gguf_type != "F16":
            source = self.files.get("right", self.merge_base, "F16")
            _, reference = parity_check.check("F16 file", source, self.reference, None, Limits())
            return self._check(path, gguf_type, reference, other_weights=False)
        base = parity_check.true_tokens(self.files.get("base", "Original", "F16"), self.reference) if other else None
        return self._check(path, gguf_type, self.reference, other_weights=other, base=base, lora=lora)

    def _check(
        self, path: Path, gguf_type: GGUFType, reference: Reference, *, other_weights: bool, **more: Any
    ) -> Figures:
        required = parity_limits.limits(
            gguf_type, other_weights=other_weights, is_exact=False, parameters=self.reference.parameters
        )
        name = "LoRA GGUF" if more.get("lora") else f"{gguf_type} file"
        return parity_check.check(name, path, reference, None, required, **more)[0]


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


def case(training: str, trained: Job, on_4bit: tuple[Reference, Loading], files: Files) -> Case:
    if training == IN_16_BIT:
        return Case(_written(trained), False, "Original", files)
    return Case(on_4bit[0], True, "Original" if training == ORIGINAL else "Trained", files)


@pytest.mark.parametrize(("training", "gguf_type"), RIGHT)
def test_the_trained_model_passes(
    training: str, gguf_type: GGUFType, trained: Job, on_4bit: tuple[Reference, Loading], files: Files
) -> None:
    right = case(training, trained, on_4bit, files)
    figures = right.check(files.get("right", right.merge_base, gguf_type), gguf_type)
    assert figures.slope == pytest.approx(1, abs=0.3)


@pytest.mark.parametrize(("training", "how", "gguf_type"), WRONG)
def test_another_model_is_refused_by_how_it_predicts_alone(
    training: str, how: str, gguf_type: GGUFType, trained: Job, on_4bit: tuple[Reference, Loading], files: Files
) -> None:
    right = case(training, trained, on_4bit, files)
    with pytest.raises(RejectedFile, match="is not the model that was trained") as refused:
        right.check(files.get(how, right.merge_base, gguf_type), gguf_type)
    assert int(refused.value.figures["tokens"] or 0) > 400


@pytest.mark.parametrize("how", ["right", "flipped"])
def test_the_adapter_alone_is_judged_on_the_base(trained: Job, files: Files, how: str, tmp_path: Path) -> None:
    folder = files.adapter if how == "right" else _scrambled(files.adapter, tmp_path / "adapter", how)
    lora_gguf.convert(model_dir(), folder, tmp_path / "lora.gguf", tmp_path)
    base, right = files.get("base", "Original", "F16"), Case(_written(trained), False, "Original", files)
    if how == "right":
        assert lora_tensors.check(tmp_path / "lora.gguf", folder, model_dir()) == []
        right.check(base, "F16", lora=tmp_path / "lora.gguf")
    else:
        with pytest.raises(RejectedFile, match=r"lora_B of .* is not the adapter's"):
            lora_tensors.check(tmp_path / "lora.gguf", files.adapter, model_dir())
        with pytest.raises(RejectedFile, match="the LoRA GGUF is not the model that was trained"):
            right.check(base, "F16", lora=tmp_path / "lora.gguf")


def test_the_file_splits_the_probes_as_the_models_own_tokenizer(trained: Job, files: Files) -> None:
    written = _written(trained)
    wrong = [probe.model_copy(update={"input_ids": [*probe.input_ids, 1]}) for probe in written.probes[1:2]]
    with LlamaModel(files.get("right", "Original", "F16"), 8) as model:
        parity_check.check_tokens(model, written.prompts, written.probes, None)
        with pytest.raises(RejectedFile, match="splits the test text with emoji into other tokens"):
            parity_check.check_tokens(model, [], wrong, None)
