"""What a user asks for: the spec of a FineTuneJob. Defaults stand here and nowhere else."""

from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from finetune_api.base import (
    Decimal,
    Model,
    at_most_one_of,
    check_one_of,
    decimal_range,
    exactly_one_of,
    patterned,
    rules,
)

# The names with `as` are for readers of a spec, who need not know in which file its parts are defined.
from finetune_api.compute import ComputeSpec as ComputeSpec
from finetune_api.compute import Resources as Resources
from finetune_api.references import ConfigMapKeyRef, S3Location, S3Object, SecretKeyRef, VolumePath

Stage = Literal["prepare", "train", "export"]
STAGES: tuple[Stage, ...] = ("prepare", "train", "export")
GGUFType = Literal["F16", "BF16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M"]


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
    token_secret_ref: SecretKeyRef | None = Field(
        None, description="Access token, for private repositories and those with terms to accept."
    )


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
        2048, ge=64, le=131072, description="In tokens (a page of text is some 500). Longer examples are cut."
    )

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        check_one_of(self, "hugging_face", "s3", "persistent_volume_claim")
        return self


class DatasetSource(Model):
    """One file of training examples: JSON Lines, one example a line. It is in exactly one place."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            exactly_one_of("configMap", "s3", "persistentVolumeClaim"),
            (
                "!has(self.persistentVolumeClaim) || has(self.persistentVolumeClaim.path)",
                "persistentVolumeClaim.path must name the file",
            ),
        )
    )

    name: (
        Annotated[
            str,
            patterned(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", "must be lower-case letters, digits and '-'", max_length=63),
        ]
        | None
    ) = Field(None, description="How messages name this source. Left out: source-<number from 1>.")
    config_map: ConfigMapKeyRef | None = Field(None, description="A small file (at most 1 MiB) in a ConfigMap.")
    s3: S3Object | None = Field(None, description="A file in a bucket.")
    persistent_volume_claim: VolumePath | None = Field(None, description="A file on a volume, mounted read-only.")

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        check_one_of(self, "config_map", "s3", "persistent_volume_claim")
        return self


class DatasetChecks(Model):
    """What is refused before a GPU is held."""

    minimum_examples: int = Field(
        50, ge=1, le=1_000_000, description="With fewer valid examples the job fails before it asks for a GPU."
    )
    invalid_rows: Literal["Fail", "Drop"] = Field("Fail", description="Drop leaves invalid rows out and counts them.")


class Holdout(Model):
    """The rows kept aside to judge the result."""

    percent: int = Field(
        5, ge=1, le=20, description="Never more than 200 rows; at least 20 rows where they are no more than 20 %."
    )


class DatasetSpec(Model):
    """The training examples."""

    sources: Annotated[list[DatasetSource], Field(min_length=1, max_length=16)] = Field(
        description="Files of examples, put together in this order."
    )
    format: Literal["Auto", "Alpaca", "Messages"] = Field(
        "Auto",
        description='Alpaca: {"instruction": ..., "input": ..., "output": ...}. '
        'Messages: {"messages": [{"role": "user", "content": ...}, {"role": "assistant", "content": ...}]}. '
        "Auto: seen from the first line of each file.",
    )
    prompt_template: Literal["Auto", "Model", "Alpaca"] = Field(
        "Auto",
        description="Model: the tokenizer's chat template. Alpaca: the Alpaca text. "
        "Auto: the chat template where the weights know its tokens, else Alpaca.",
    )
    system_prompt: Annotated[str, Field(min_length=1, max_length=8192)] | None = Field(
        None, description="Put before every example that has none of its own."
    )
    checks: DatasetChecks = DatasetChecks()
    holdout: Holdout = Holdout()


class LoRA(Model):
    """The adapter: small matrices that are trained beside the frozen model."""

    rank: int = Field(16, ge=1, le=512, description="Size of the matrices. More learns more and needs more memory.")
    alpha: int = Field(16, ge=1, le=2048, description="Strength of the adapter; usually the rank or twice the rank.")
    dropout: Decimal = Field(
        "0",
        description="Share of the adapter's inputs that is dropped in training, against overfitting.",
        json_schema_extra=decimal_range("value < 1.0", "must be at least 0 and below 1"),
    )
    target_modules: Annotated[
        list[
            Annotated[
                str,
                patterned(
                    r"^[A-Za-z0-9_]+$", "must be the name of a layer, such as q_proj", min_length=1, max_length=64
                ),
            ]
        ],
        Field(min_length=1, max_length=16, json_schema_extra={"x-kubernetes-list-type": "set"}),
    ] = Field(
        ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        description="Names of the linear layers that get an adapter. Default: all of attention and MLP.",
    )
    use_rslora: bool = Field(
        False,
        alias="useRSLoRA",
        description="Scale by alpha/sqrt(rank) instead of alpha/rank; for ranks of 64 and more.",
    )


class Checkpoint(Model):
    """How often training can be resumed from."""

    model_config = ConfigDict(json_schema_extra=rules(at_most_one_of("everySeconds", "everySteps")))

    every_seconds: int | None = Field(None, ge=1, le=86400, description="Left out, without everySteps: 300.")
    every_steps: int | None = Field(None, ge=1, le=1_000_000, description="In optimizer steps.")


class TrainingSpec(Model):
    """The hyper-parameters."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            at_most_one_of("maxSteps", "epochs"),
            (
                "!has(self.microBatchSize) || self.microBatchSize <= (has(self.batchSize) ? self.batchSize : 8)",
                "microBatchSize must not be larger than batchSize",
            ),
            (
                "!has(self.microBatchSize) || (has(self.batchSize) ? self.batchSize : 8) % self.microBatchSize == 0",
                "batchSize must be a multiple of microBatchSize",
            ),
        )
    )

    method: Literal["SFT"] = Field("SFT", description="SFT: learn to give the answers of the examples.")
    lora: LoRA = LoRA()
    batch_size: int = Field(8, ge=1, le=4096, description="Examples per optimizer step.")
    micro_batch_size: int | None = Field(
        None, ge=1, le=4096, description="Examples per forward pass. It changes the speed, not the result. Left out: 2."
    )
    max_steps: int | None = Field(
        None, ge=1, le=1_000_000, description="Optimizer steps. Left out, without epochs: 60."
    )
    epochs: int | None = Field(None, ge=1, le=1000, description="Passes over all examples, instead of maxSteps.")
    learning_rate: Decimal = Field(
        "2e-4",
        description='In quotes, such as "2e-4".',
        json_schema_extra=decimal_range("(value > 0.0 && value <= 1.0)", "must be above 0 and at most 1"),
    )
    learning_rate_schedule: Literal["Linear", "Cosine", "Constant"] = Field(
        "Linear", description="How the learning rate falls after the warm-up."
    )
    warmup_steps: int = Field(5, ge=0, le=100_000, description="Steps in which the learning rate rises from 0.")
    weight_decay: Decimal = Field(
        "0.01", json_schema_extra=decimal_range("value <= 1.0", "must be at least 0 and at most 1")
    )
    max_grad_norm: Decimal = Field(
        "1.0",
        description="Longer gradients are cut to this length.",
        json_schema_extra=decimal_range("(value > 0.0 && value <= 1000000.0)", "must be above 0 and at most 1000000"),
    )
    optimizer: Literal["AdamW8bit", "AdamW"] = Field(
        "AdamW8bit", description="AdamW8bit keeps its state in 8 bit and needs less GPU memory."
    )
    precision: Literal["Auto", "BF16", "FP16"] = Field(
        "Auto", description="Auto: BF16 where the GPU has it, else FP16."
    )
    gradient_checkpointing: Literal["Auto", "None", "Standard", "Offload"] = Field(
        "Auto", description="Auto: Offload (activations in host memory)."
    )
    train_on_responses_only: bool = Field(True, description="Learn the answers, not the questions.")
    seed: int = Field(3407, ge=0, le=2_147_483_647, description="The same seed gives the same order of examples.")
    checkpoint: Checkpoint = Checkpoint()


class EvaluationSpec(Model):
    """The questions asked before and after."""

    prompts: Annotated[list[Annotated[str, Field(min_length=1, max_length=2000)]], Field(max_length=16)] = Field(
        [], description="Answered by the model before and after training, so that you can compare."
    )
    max_new_tokens: int = Field(256, ge=1, le=4096, description="Length of an answer, in tokens.")


class ExportSpec(Model):
    """The files made from the adapter besides itself."""

    gguf: Annotated[list[GGUFType], Field(max_length=8, json_schema_extra={"x-kubernetes-list-type": "set"})] = Field(
        [],
        description="GGUF files for Ollama, llama.cpp and LM Studio, one per type. Q4_K_M is small and good, "
        "Q8_0 is near lossless, F16 is lossless. Left out: the adapter only.",
    )


class OutputSpec(Model):
    """Where everything is written."""

    s3: S3Location


class Retries(Model):
    """What happens after a failure that may pass."""

    maximum: int = Field(3, ge=0, le=20, description="Counted failures per stage before the job fails.")


def _immutable(member: str) -> tuple[str, str]:
    return (
        f"has(self.{member}) == has(oldSelf.{member}) && (!has(self.{member}) || self.{member} == oldSelf.{member})",
        f"{member} is immutable; create a FineTuneJob with a new name",
    )


class FineTuneJobSpec(Model):
    """One fine-tuning run."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            *(_immutable(m) for m in ("model", "dataset", "training", "evaluation", "export", "output"))
        )
    )

    model: ModelSpec
    dataset: DatasetSpec
    training: TrainingSpec = TrainingSpec()
    evaluation: EvaluationSpec = EvaluationSpec()
    export: ExportSpec = ExportSpec()
    output: OutputSpec
    compute: ComputeSpec = ComputeSpec()
    retries: Retries = Retries()
