"""The limits that the report shows are those that files were held against."""

from typing import Literal

from finetune_api.report import ParityLimits
from finetune_api.spec import GGUFType
from finetune_api.status import Artifact, Parity
from finetune_trainer.export.parity import limits as parity_limits
from finetune_trainer.export.parity import limits_report

_SMALL = 135_000_000


def artifact(
    name: str, kind: Literal["GGUF", "LoRAGGUF", "MergedModel", "Modelfile"] = "GGUF", *, proven: bool = True
) -> Artifact:
    parity = Parity(kl="0.01", top1="0.99") if proven else None
    return Artifact(name=name, type=kind, path=name, size_bytes=1, sha256="0" * 64, parity=parity)


def shown(of: GGUFType, *, other_weights: bool = False, parameters: int | None = None) -> ParityLimits:
    found = parity_limits.limits(of, other_weights=other_weights, is_exact=True, parameters=parameters)
    return ParityLimits(kl=found.kl, top1=found.top1)


def test_each_file_has_the_limits_of_its_type() -> None:
    found = limits_report.of(
        [artifact("F16"), artifact("Q4_K_M")],
        ["F16", "Q4_K_M"],
        trained_in_4bit=False,
        merge_base="Original",
        parameters=None,
    )
    assert found == {"F16": shown("F16"), "Q4_K_M": shown("Q4_K_M")}


def test_small_models_have_their_own_limits() -> None:
    found = limits_report.of(
        [artifact("Q8_0")], ["Q8_0"], trained_in_4bit=False, merge_base="Original", parameters=_SMALL
    )
    assert found == {"Q8_0": shown("Q8_0", parameters=_SMALL)}


def test_other_weights_than_those_of_training_have_their_own_limits() -> None:
    found = limits_report.of([artifact("F16")], ["F16"], trained_in_4bit=True, merge_base="Original", parameters=None)
    assert found == {"F16": shown("F16", other_weights=True)}


def test_the_weights_of_training_have_the_narrow_limits() -> None:
    found = limits_report.of([artifact("F16")], ["F16"], trained_in_4bit=True, merge_base="Trained", parameters=None)
    assert found == {"F16": shown("F16")}


def test_an_adapter_beside_a_16_bit_base_is_on_other_weights_than_those_of_4_bit_training() -> None:
    found = limits_report.of(
        [artifact("LoRA", "LoRAGGUF")], [], trained_in_4bit=True, merge_base="Trained", parameters=None
    )
    assert found == {"LoRA": shown("F16", other_weights=True)}


def test_a_merged_model_has_the_limits_of_the_16_bit_file() -> None:
    found = limits_report.of(
        [artifact("Merged", "MergedModel")], ["Q4_K_M"], trained_in_4bit=False, merge_base="Original", parameters=None
    )
    assert found == {"Merged": shown("F16")}


def test_files_without_a_proof_have_no_limits() -> None:
    found = limits_report.of(
        [artifact("Modelfile-F16", "Modelfile", proven=False)],
        ["F16"],
        trained_in_4bit=False,
        merge_base="Original",
        parameters=None,
    )
    assert found == {}
