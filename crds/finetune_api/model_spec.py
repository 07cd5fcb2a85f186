"""The model to start from: `spec.model`."""

from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from finetune_api.base import Model, Name, check_one_of, exactly_one_of, patterned, rules
from finetune_api.references import S3Location, SecretKeyRef, VolumePath


class HuggingFaceModel(Model):
    """A model repository on the Hugging Face hub, or on the mirror that the chart names."""

    repository: Annotated[
        str,
        patterned(
            r"^[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?$",
            "must be <owner>/<name> on the hub, not a URL or a path",
            max_length=200,
        ),
    ] = Field(description="Such as unsloth/llama-3-8b-bnb-4bit.")
    revision: Annotated[
        str,
        patterned(r"^[A-Za-z0-9]\w*([./-]\w+)*$", "must be a branch, a tag or a commit", max_length=200),
    ] = Field("main", description="Branch, tag or commit. It is resolved to a commit once, at the start.")
    token_secret_ref: SecretKeyRef | None = Field(None, description="Access token, for private and gated repositories.")


class FineTuneJobRef(Model):
    """A FineTuneJob of the same namespace that writes to the same spec.output.s3.uri."""

    name: Name


class AdapterSource(Model):
    """An existing adapter, which is trained further instead of a new one."""

    model_config = ConfigDict(json_schema_extra=rules(exactly_one_of("s3", "fineTuneJobRef")))

    s3: S3Location | None = Field(None, description="A folder with adapter_config.json and adapter_model.safetensors.")
    fine_tune_job_ref: FineTuneJobRef | None = Field(
        None, description="The newest complete run of an earlier FineTuneJob."
    )

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        check_one_of(self, "s3", "fine_tune_job_ref")
        return self


class ModelSpec(Model):
    """The model to start from, in exactly one place."""

    model_config = ConfigDict(json_schema_extra=rules(exactly_one_of("huggingFace", "s3", "persistentVolumeClaim")))

    hugging_face: HuggingFaceModel | None = Field(None, description="From the Hugging Face hub or its mirror.")
    s3: S3Location | None = Field(None, description="From a folder in a bucket: config.json, tokenizer, safetensors.")
    persistent_volume_claim: VolumePath | None = Field(
        None, description="From a folder on a volume, mounted read-only."
    )
    quantization: Literal["NF4", "None"] = Field(
        "NF4",
        description="NF4 loads the model in 4 bit (QLoRA) and needs about a quarter of the GPU memory; "
        "None keeps 16 bit (LoRA).",
    )
    max_sequence_length: int = Field(
        2048, ge=64, le=131072, description="In tokens (a page of text has about 500). Longer examples are truncated."
    )
    adapter: AdapterSource | None = Field(
        None, description="Continue training an earlier adapter of the same model, for example with more data."
    )

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        check_one_of(self, "hugging_face", "s3", "persistent_volume_claim")
        return self
