"""The result of a stage: its termination message, and the object that the next stage reads."""

import base64
import json
import zlib
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, TypeAdapter

from finetune_api.base import MAXIMUM_MESSAGE, Message, Model, Sha256, ShortText
from finetune_api.spec import Stage
from finetune_api.status import (
    Artifact,
    DatasetStatus,
    Effective,
    EvaluationStatus,
    MemoryStatus,
    ModelStatus,
    ScratchStatus,
)

# The kubelet cuts a termination message here: MaxPodTerminationMessageLogLength in pkg/kubelet/container/runtime.go.
MAXIMUM_TERMINATION_BYTES = 4096
# The limit of `message` in JSON. What is always kept besides it (stage, codes, reason, run id, folder, verdict) takes
# less than 1,600 bytes.
_MAXIMUM_MESSAGE_BYTES = 2400
_OUTCOME = ("stage", "exitCode", "reason", "message", "runId", "checkpointStep", "reusedFrom")
_FIGURES = ("holdoutLossBase", "holdoutLossTuned", "standardError", "verdict")
_LARGEST_STEP = 2**63 - 1
# As many as the status may have, and more bytes than they take with the longest paths.
_ARTIFACTS = TypeAdapter(Annotated[list[Artifact], Field(max_length=24)])
_MAXIMUM_UNPACKED_BYTES = 64 * 1024


def _as_message(value: Any) -> Any:
    """Cut text that is too long and replace invalid Unicode: an unreadable failure would be worse."""
    if not isinstance(value, str):
        return value
    return value.encode("utf-8", "replace").decode("utf-8")[:MAXIMUM_MESSAGE]


class StageResult(Model):
    """The outcome of one attempt of one stage. Paths are relative to the run's folder."""

    stage: Stage
    exit_code: int = Field(ge=0, le=255)
    reason: Annotated[str, Field(max_length=128)] = ""
    message: Annotated[Message, BeforeValidator(_as_message)] = ""
    run_id: Sha256 | None = None
    # One byte per character in JSON.
    reused_from: Annotated[str, Field(max_length=256, pattern=r"^[!#-\[\]-~]+$")] | None = Field(
        None, description="Set by prepare: the key, below spec.output.s3.uri, of an identical complete run."
    )
    log: Annotated[str, Field(max_length=512)] | None = Field(None, description="Key below spec.output.s3.uri.")
    checkpoint_step: int | None = Field(
        None, ge=0, le=_LARGEST_STEP, description="Newest complete checkpoint in the bucket."
    )
    dataset: DatasetStatus | None = None
    model: ModelStatus | None = None
    memory: MemoryStatus | None = None
    scratch: ScratchStatus | None = None
    effective: Effective | None = None
    evaluation: EvaluationStatus | None = None
    artifacts: list[Artifact] = []
    packed_artifacts: Annotated[str, Field(max_length=MAXIMUM_TERMINATION_BYTES)] | None = Field(
        None, description="The artifacts as `_pack` makes them, for a termination message that would be too long."
    )
    timings: dict[ShortText, float] = Field({}, description="Seconds by part.")

    @classmethod
    def of_termination_message(cls, message: str | bytes) -> Self:
        """Read what `termination_message` returned.

        Raises:
            ValidationError: it is no such message.
        """
        result = cls.model_validate_json(message)
        if result.packed_artifacts is None:
            return result
        artifacts = _unpack(result.packed_artifacts)
        return result.model_copy(update={"artifacts": artifacts, "packed_artifacts": None})

    def termination_message(self) -> bytes:
        """Return the JSON that fits the kubelet's limit.

        If it is too long, the artifacts are packed first, which loses nothing: with their checksums, those of many
        files take less than half of the space. Then it drops what is also in the bucket, in this order: timings,
        warnings, the end of the message (which is replaced by an ellipsis), artifacts, and everything but outcome and
        verdict.
        """
        steps: tuple[dict[str, object], ...] = (
            {},
            {"artifacts": [], "packed_artifacts": _pack(self.artifacts)} if self.artifacts else {},
            {"timings": {}},
            {
                "dataset": self.dataset.model_copy(update={"warnings": []}) if self.dataset else None,
                "evaluation": self.evaluation.model_copy(update={"warnings": []}) if self.evaluation else None,
            },
            {"message": _cut(self.message, _MAXIMUM_MESSAGE_BYTES)},
            {"packed_artifacts": None},
        )
        result = self
        for shorter in steps:
            result = result.model_copy(update=shorter)
            data = _encode(result.to_json())
            if len(data) < MAXIMUM_TERMINATION_BYTES:
                return data
        outcome = result.to_json()
        kept = {k: outcome[k] for k in _OUTCOME if k in outcome}
        # A gate must not be missed because of a long path.
        figures = {k: v for k, v in outcome.get("evaluation", {}).items() if k in _FIGURES}
        return _encode(kept | ({"evaluation": figures} if figures else {}))


def _pack(artifacts: list[Artifact]) -> str:
    """Return them as base64 of their JSON, compressed by zlib (RFC 1950)."""
    return base64.b64encode(zlib.compress(_encode([a.to_json() for a in artifacts]), 9)).decode()


def _unpack(packed: str) -> list[Artifact]:
    """Return what was packed, or nothing if it is invalid: what a pod reports is not trusted."""
    try:
        data = zlib.decompressobj().decompress(base64.b64decode(packed), _MAXIMUM_UNPACKED_BYTES)
        return _ARTIFACTS.validate_json(data)
    except (ValueError, zlib.error):
        return []


def _encode(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _cut(text: str, maximum_bytes: int) -> str:
    """Return the longest beginning whose JSON, ellipsis and quotes included, has at most `maximum_bytes`."""
    if len(_encode(text)) <= maximum_bytes:
        return text
    ellipsis = "…"
    left = maximum_bytes - len(_encode(ellipsis))
    for position, character in enumerate(text):
        left -= len(_encode(character)) - 2  # without its quotes
        if left < 0:
            return text[:position] + ellipsis
    raise AssertionError("a text that is too long has a position at which it is")
