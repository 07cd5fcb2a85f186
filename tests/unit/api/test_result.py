import base64
import hashlib
import json
import zlib
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from finetune_api.result import MAXIMUM_TERMINATION_BYTES, StageResult
from finetune_api.spec import GGUFType
from finetune_api.status import (
    Artifact,
    DatasetStatus,
    Effective,
    EvaluationStatus,
    MemoryStatus,
    ModelStatus,
    Parity,
    ScratchStatus,
)
from tests.unit.api import strategies

TEXT = st.text(st.characters(codec="utf-8"))
SHORT = st.text(st.one_of(st.characters(codec="utf-8"), st.sampled_from('가나다\x01"😀')), max_size=256)
ARTIFACT = Artifact(name="n" * 63, type="GGUF", path="경" * 512, size_bytes=10**15, sha256="0" * 64)


def huge(message: str, artifacts: int = 10) -> StageResult:
    """A result with every member as large as its type allows."""
    wide = "\x01" * 256  # six bytes each in JSON
    return StageResult(
        stage="prepare",
        exit_code=255,
        reason="\x01" * 128,
        message=message,
        run_id="f" * 64,
        reused_from="r" * 256,
        log="\x01" * 512,
        checkpoint_step=2**63 - 1,
        dataset=DatasetStatus(examples=10**9, supervised_tokens=10**12, warnings=["\x01" * 512] * 8),
        model=ModelStatus(revision=wide, architecture=wide, template="Custom", adapter="\x01" * 2048),
        memory=MemoryStatus(estimated_mib=10**9, peak_mib=10**9),
        scratch=ScratchStatus(train_mib=10**9, export_mib=10**9),
        effective=Effective(
            attention=wide, precision=wide, gradient_checkpointing=wide, optimizer=wide, gpu=wide, driver=wide
        ),
        evaluation=EvaluationStatus(
            **dict.fromkeys(
                (
                    *("holdout_loss_base", "holdout_loss_tuned", "standard_error"),
                    *("reward_accuracy", "reward_margin", "forgetting"),
                ),
                "1" * 32,
            ),
            verdict="NotEnoughEvidence",
            best_step=10**9,
            warnings=["\x01" * 512] * 4,
        ),
        artifacts=[ARTIFACT] * artifacts,
        timings={f"{i}{wide}"[:256]: 1.0 for i in range(50)},
    )


@pytest.mark.parametrize("character", ["a", "가", "\x01", '"', "😀"])
def test_the_largest_result_fits_the_termination_message(character: str) -> None:
    data = huge(character * 4096).termination_message()
    assert len(data) < MAXIMUM_TERMINATION_BYTES


def test_the_largest_result_still_tells_its_outcome() -> None:
    found = StageResult.model_validate_json(huge("가" * 4096).termination_message())
    assert (found.stage, found.exit_code, found.run_id, found.checkpoint_step) == ("prepare", 255, "f" * 64, 2**63 - 1)
    assert found.reused_from == "r" * 256
    assert found.evaluation is not None
    assert (found.evaluation.verdict, found.evaluation.standard_error) == ("NotEnoughEvidence", "1" * 32)
    assert found.message.startswith("가" * 700)
    assert found.message.endswith("가…")


@strategies.unhurried
@given(
    st.builds(
        StageResult,
        stage=st.sampled_from(["prepare", "train", "export"]),
        exit_code=st.integers(0, 255),
        reason=st.text(st.characters(codec="utf-8"), max_size=128),
        message=st.one_of(TEXT, st.integers(0, 5000).map("손목이 아파요. ".__mul__)),
        run_id=st.none() | st.just("0" * 64),
        reused_from=st.none() | st.just(f"research/coach/{'0' * 64}"),
        log=st.none() | SHORT,
        checkpoint_step=st.none() | st.integers(0, 2**63 - 1),
        effective=st.none() | st.builds(Effective, gpu=SHORT, driver=SHORT, attention=SHORT),
        evaluation=st.none()
        | st.builds(
            EvaluationStatus,
            verdict=st.sampled_from(["Better", "Worse", "NotEnoughEvidence"]),
            warnings=st.lists(SHORT, max_size=4),
        ),
        artifacts=st.lists(st.just(ARTIFACT), max_size=10),
        timings=st.dictionaries(SHORT, st.floats(0, 1e6), max_size=10),
    )
)
def test_any_result_fits_and_reads_back(result: StageResult) -> None:
    data = result.termination_message()
    assert len(data) < MAXIMUM_TERMINATION_BYTES
    found = StageResult.model_validate_json(data)
    assert (found.stage, found.exit_code, found.reason) == (result.stage, result.exit_code, result.reason)
    assert result.message.startswith(found.message.removesuffix("…"))


def shed(result: StageResult) -> set[str]:
    return set(result.to_json()) - set(json.loads(result.termination_message()))


def test_a_result_of_usual_size_is_reported_whole() -> None:
    artifact = {"type": "GGUF", "sizeBytes": 4_920_000_000, "sha256": "0" * 64}
    result = StageResult.model_validate(
        {
            "stage": "export",
            "exitCode": 0,
            "runId": "0" * 64,
            "log": f"research/gym-coach/{'0' * 64}/logs/export-0.log",
            "artifacts": [{"name": f"gguf-{i}", "path": f"gguf/gym-coach-{i}.gguf", **artifact} for i in range(10)],
            "timings": {"merge": 12.5, "convert": 30.25, "quantize": 61.0, "upload": 44.125},
        }
    )
    assert json.loads(result.termination_message()) == result.to_json()


def test_timings_are_the_first_to_go() -> None:
    result = StageResult(stage="train", exit_code=0, timings={"x" * 200 + str(i): 1.0 for i in range(20)})
    assert json.loads(result.termination_message())["timings"] == {}


def test_warnings_go_next_and_the_verdict_stays() -> None:
    reported = EvaluationStatus(verdict="Worse", standard_error="0.04", warnings=["가" * 512] * 4)
    found = json.loads(StageResult(stage="train", exit_code=0, evaluation=reported).termination_message())
    assert found["evaluation"] == {"verdict": "Worse", "standardError": "0.04", "warnings": []}


def test_a_reused_run_is_named_by_its_key() -> None:
    with pytest.raises(ValidationError):
        StageResult(stage="prepare", exit_code=0, reused_from="a\x01b")


def test_artifacts_stay_longer_than_the_end_of_the_message() -> None:
    artifact = ARTIFACT.model_copy(update={"path": "gguf/a.gguf"})
    result = StageResult(stage="export", exit_code=1, message="가" * 2000, artifacts=[artifact] * 3)
    found = StageResult.of_termination_message(result.termination_message())
    assert len(found.artifacts) == 3
    assert found.message.endswith("…")


def test_a_message_that_is_too_long_or_no_unicode_is_mended_rather_than_lost() -> None:
    result = StageResult(stage="train", exit_code=1, message="\udcff" + "x" * 5000)
    assert result.message == "?" + "x" * 4095


def packed(text: str) -> str:
    return base64.b64encode(zlib.compress(text.encode(), 9)).decode()


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def made(name: str, kind: Any, path: str) -> Artifact:
    """As the trainer makes them."""
    digits = str(int(sha256(name), 16))
    parity = {"kl": f"0.00{digits[:6]}", "top1": f"0.{digits[6:12]}", "retained_gain": f"0.{digits[12:18]}"}
    size = int(digits[:10])
    return Artifact(name=name, type=kind, path=path, size_bytes=size, sha256=sha256(path), parity=Parity(**parity))


def largest_export() -> StageResult:
    """What a job of the longest name leaves that asks for everything: 8 quantizations, the LoRA GGUF, the model."""
    job = "n" * 40
    types = get_args(GGUFType)[-8:]
    artifacts = [made(t, "GGUF", f"gguf/{job}-{t}.gguf") for t in types]
    artifacts += [made(f"Modelfile-{t}", "Modelfile", f"gguf/Modelfile-{t}") for t in types]
    artifacts += [made("LoRA", "LoRAGGUF", f"gguf/{job}-LoRA-F16.gguf"), made("Merged", "MergedModel", "merged")]
    log = f"{'s' * 63}/{job}/{'0' * 64}/logs/export-0.log"
    timings = dict.fromkeys(("download", "merge", "convert", "prove", "quantize", "handOff", "upload"), 1234.5)
    return StageResult(stage="export", exit_code=0, run_id=sha256("run"), log=log, artifacts=artifacts, timings=timings)


def test_no_artifact_of_the_largest_export_is_lost() -> None:
    result = largest_export()
    assert len(json.dumps(result.to_json())) > MAXIMUM_TERMINATION_BYTES
    assert StageResult.of_termination_message(result.termination_message()) == result


def test_a_reader_that_knows_no_packed_artifacts_still_learns_the_outcome() -> None:
    found = json.loads(largest_export().termination_message())
    assert (found["stage"], found["exitCode"], found["artifacts"]) == ("export", 0, [])


@pytest.mark.parametrize(
    "text",
    ["!", "AAAA", packed("[{}]"), packed("[")],
)
def test_what_cannot_be_unpacked_is_left_out(text: str) -> None:
    reported = {"stage": "export", "exitCode": 0, "packedArtifacts": text}
    found = StageResult.of_termination_message(json.dumps(reported))
    assert (found.exit_code, found.artifacts, found.packed_artifacts) == (0, [], None)


@pytest.mark.parametrize(
    "text", [" " * 2_000_000 + json.dumps([ARTIFACT.to_json()]), json.dumps([ARTIFACT.to_json()] * 25)]
)
def test_a_message_never_grows_beyond_what_the_status_may_hold(text: str) -> None:
    reported = {"stage": "export", "exitCode": 0, "packedArtifacts": packed(text)}
    assert StageResult.of_termination_message(json.dumps(reported)).artifacts == []
