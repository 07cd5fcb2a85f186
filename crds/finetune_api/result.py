"""What a stage leaves behind: its termination message, and the object that the next stage reads."""

import json
from typing import Annotated

from pydantic import Field

from finetune_api.base import Message, Model, Sha256, ShortText
from finetune_api.spec import Stage
from finetune_api.status import Artifact, DatasetStatus, Effective, EvaluationStatus, MemoryStatus, ModelStatus

# The kubelet cuts a termination message here: MaxPodTerminationMessageLogLength in pkg/kubelet/container/runtime.go.
MAXIMUM_TERMINATION_BYTES = 4096
_SHORT_MESSAGE = 600


class StageResult(Model):
    """The outcome of one attempt of one stage. Paths are relative to the run's folder."""

    stage: Stage
    exit_code: int
    reason: Annotated[str, Field(max_length=128)] = ""
    message: Message = ""
    run_id: Sha256 | None = None
    log: Annotated[str, Field(max_length=512)] | None = Field(None, description="Key below spec.output.s3.uri.")
    checkpoint_step: int | None = Field(None, description="Newest complete checkpoint in the bucket.")
    dataset: DatasetStatus | None = None
    model: ModelStatus | None = None
    memory: MemoryStatus | None = None
    effective: Effective | None = None
    evaluation: EvaluationStatus | None = None
    artifacts: list[Artifact] = []
    timings: dict[ShortText, float] = Field({}, description="Seconds by part.")

    def termination_message(self) -> bytes:
        """Return the JSON that fits the kubelet's limit, shedding what the bucket holds too.

        The order: timings, then warnings, then the message is cut, then the artifacts.
        """
        result = self
        steps: tuple[dict[str, object], ...] = (
            {},
            {"timings": {}},
            {"dataset": self.dataset.model_copy(update={"warnings": []}) if self.dataset else None},
            {"message": self.message[:_SHORT_MESSAGE]},
            {"artifacts": []},
        )
        for shorter in steps:
            result = result.model_copy(update=shorter)
            data = json.dumps(result.to_json(), ensure_ascii=False, separators=(",", ":")).encode()
            if len(data) < MAXIMUM_TERMINATION_BYTES:
                return data
        raise AssertionError("a StageResult without artifacts does not fit a termination message")
