"""The hyper-parameters: `spec.training`."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from finetune_api.base import Decimal, Model, at_most_one_of, decimal_range, patterned, rules

Method = Literal["SFT", "DPO", "ORPO", "KTO"]

# Defaults that rules and descriptions repeat, and those that depend on what else is left out.
BATCH_SIZE = 8
# The length of a job that does not set it; the trainer resolves it when it has counted the rows.
FEWEST_STEPS = 60
USUAL_EPOCHS = 3
MOST_STEPS_IN_EPOCHS = 600
MOST_ROWS_SEEN_ONCE = 20_000
CHECKPOINT_SECONDS = 300
WARMUP_STEPS = 5
# Preference losses move a model far more per step than the plain loss. These are TRL's defaults, except for SFT, which
# has that of the well-known notebook recipe (examples/guide.yaml).
HANG_TIMEOUT_SECONDS = 1800
LEARNING_RATES: dict[Method, str] = {
    "SFT": "2e-4",
    "DPO": "5e-6",
    "ORPO": "8e-6",
    "KTO": "5e-6",
}


def _learning_rates() -> str:
    """Return each default with its methods, as descriptions have it."""
    methods: dict[str, list[str]] = {}
    for method, rate in LEARNING_RATES.items():
        methods.setdefault(rate, []).append(method)
    return ", ".join(f"{rate} for {' and '.join(names)}" for rate, names in methods.items())


_BATCH = f"(has(self.batchSize) ? self.batchSize : {BATCH_SIZE})"


class LoRA(Model):
    """The adapter: small matrices that are trained while the model stays frozen."""

    rank: int = Field(
        16, ge=1, le=512, description="Size of the matrices. A higher rank can learn more and needs more memory."
    )
    alpha: int = Field(16, ge=1, le=2048, description="Strength of the adapter; usually the rank or twice the rank.")
    dropout: Decimal = Field(
        "0",
        description="Share of the adapter's inputs that training drops, against overfitting.",
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
    """How often a checkpoint is saved."""

    model_config = ConfigDict(json_schema_extra=rules(at_most_one_of("everySeconds", "everySteps")))

    every_seconds: int | None = Field(
        None, ge=1, le=86400, description=f"Left out, without everySteps: {CHECKPOINT_SECONDS}."
    )
    every_steps: int | None = Field(None, ge=1, le=1_000_000, description="In optimizer steps.")


_BETA = decimal_range("(value > 0.0 && value <= 10.0)", "must be above 0 and at most 10")
_WEIGHT = decimal_range("(value > 0.0 && value <= 100.0)", "must be above 0 and at most 100")


class DPOSpec(Model):
    """Settings of DPO."""

    beta: Decimal = Field(
        "0.1", description="How close the result stays to the base; higher is closer.", json_schema_extra=_BETA
    )


class ORPOSpec(Model):
    """Settings of ORPO."""

    beta: Decimal = Field(
        "0.1", description="Weight of the preference beside the plain loss on the chosen answer.",
        json_schema_extra=_BETA,
    )  # fmt: skip


class KTOSpec(Model):
    """Settings of KTO."""

    beta: Decimal = Field(
        "0.1", description="How close the result stays to the base; higher is closer.", json_schema_extra=_BETA
    )
    desirable_weight: Decimal = Field(
        "1.0", description="Weight of the examples with label true.", json_schema_extra=_WEIGHT
    )
    undesirable_weight: Decimal = Field(
        "1.0", description="Weight of the examples with label false.", json_schema_extra=_WEIGHT
    )


# The settings of single methods; their field of `spec.training` has the method's name in lower case.
METHOD_SETTINGS: dict[Method, type[Model]] = {
    "DPO": DPOSpec,
    "ORPO": ORPOSpec,
    "KTO": KTOSpec,
}


class TrainingSpec(Model):
    """The hyper-parameters."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            at_most_one_of("maxSteps", "epochs"),
            at_most_one_of("warmupSteps", "warmupRatio"),
            *(
                (
                    f"!has(self.{member}) || (has(self.method) && self.method == '{member.upper()}')",
                    f"{member} has the settings of method {member.upper()}, which is not the method of this job",
                )
                for member in map(str.lower, METHOD_SETTINGS)
            ),
            *(
                (
                    f"!has(self.{member}) || !has(self.method) || self.method == 'SFT'",
                    f"{member} is for method SFT alone; leave it out",
                )
                for member in ("trainOnResponsesOnly", "neftuneNoiseAlpha")
            ),
            (
                "!has(self.method) || self.method != 'KTO' || !has(self.batchSize) || self.batchSize >= 2",
                "method KTO compares the examples of a step with one another; batchSize must be at least 2",
            ),
            (
                f"!has(self.microBatchSize) || self.microBatchSize <= {_BATCH}",
                "microBatchSize must not be larger than batchSize",
            ),
            (
                f"!has(self.microBatchSize) || {_BATCH} % self.microBatchSize == 0",
                "batchSize must be a multiple of microBatchSize",
            ),
        )
    )

    method: Method = Field(
        "SFT",
        description="SFT: learn to give the answers of the examples. DPO: learn to prefer chosen to rejected answers. "
        "ORPO (alpha): both at once, without a reference model. KTO: learn from answers marked good or bad.",
    )
    dpo: DPOSpec | None = None
    orpo: ORPOSpec | None = None
    kto: KTOSpec | None = None
    lora: LoRA = LoRA()
    batch_size: int = Field(BATCH_SIZE, ge=1, le=4096, description="Examples per optimizer step.")
    micro_batch_size: int | None = Field(
        None,
        ge=1,
        le=4096,
        description="Examples per forward pass. It changes the speed, not the result. "
        "Left out: the most that the memory estimate allows.",
    )
    max_steps: int | None = Field(
        None,
        ge=1,
        le=1_000_000,
        description="Optimizer steps. Left out, without epochs, prepare chooses by the number of training rows. SFT: "
        f"{USUAL_EPOCHS} passes over them, but at most {MOST_STEPS_IN_EPOCHS} steps, at least one pass over "
        f"{MOST_ROWS_SEEN_ONCE} rows and at least {FEWEST_STEPS} steps. DPO, ORPO and KTO: one pass. "
        "status.dataset.stepsPlanned has the number.",
    )
    epochs: int | None = Field(None, ge=1, le=1000, description="Passes over all examples, instead of maxSteps.")
    learning_rate: Decimal | None = Field(
        None,
        description=f'In quotes, such as "2e-4". Left out: {_learning_rates()}.',
        json_schema_extra=decimal_range("(value > 0.0 && value <= 1.0)", "must be above 0 and at most 1"),
    )
    learning_rate_schedule: Literal["Linear", "Cosine", "Constant"] = Field(
        "Linear", description="How the learning rate falls after the warm-up."
    )
    warmup_steps: int | None = Field(
        None,
        ge=0,
        le=100_000,
        description="Steps in which the learning rate rises from 0. Left out, without warmupRatio: "
        f"{WARMUP_STEPS}, but no more than a fifth of all steps.",
    )
    warmup_ratio: Decimal | None = Field(
        None,
        description='The same as a share of all steps, such as "0.03".',
        json_schema_extra=decimal_range("value <= 0.5", "must be at most 0.5"),
    )
    weight_decay: Decimal = Field(
        "0.01", json_schema_extra=decimal_range("value <= 1.0", "must be at least 0 and at most 1")
    )
    max_grad_norm: Decimal = Field(
        "1.0",
        description="Gradients with a larger norm are scaled down to this norm.",
        json_schema_extra=decimal_range("(value > 0.0 && value <= 1000000.0)", "must be above 0 and at most 1000000"),
    )
    adam_beta2: Decimal = Field(
        "0.999",
        description="Decay of the optimizer's average of squared gradients.",
        json_schema_extra=decimal_range("(value >= 0.5 && value < 1.0)", "must be at least 0.5 and below 1"),
    )
    neftune_noise_alpha: Decimal | None = Field(
        None,
        description='Noise on the embeddings, against overfitting on few examples; "5" is usual. Left out: none.',
        json_schema_extra=decimal_range("(value > 0.0 && value <= 100.0)", "must be above 0 and at most 100"),
    )
    keep: Literal["Best", "Last"] = Field(
        "Best", description="Best: the step with the lowest hold-out loss. Last: the last step."
    )
    early_stopping_patience: int | None = Field(
        None,
        ge=1,
        le=100,
        description="Stop after this many measurements of the hold-out loss without an improvement. There are about "
        "five in a run. Left out: never.",
    )
    optimizer: Literal["AdamW8bit", "AdamW"] = Field(
        "AdamW8bit", description="AdamW8bit keeps its state in 8 bit and needs less GPU memory."
    )
    precision: Literal["Auto", "BF16", "FP16"] = Field(
        "Auto", description="Auto: BF16 if the GPU supports it, else FP16."
    )
    gradient_checkpointing: Literal["Auto", "None", "Standard", "Offload"] = Field(
        "Auto",
        description="Auto: as little as the memory estimate requires. None is the fastest and needs the most GPU "
        "memory; Offload (activations in host memory) needs the least.",
    )
    train_on_responses_only: bool = Field(True, description="Learn the answers, not the questions.")
    seed: int = Field(3407, ge=0, le=2_147_483_647, description="The same seed gives the same order of examples.")
    checkpoint: Checkpoint = Checkpoint()
    hang_timeout_seconds: int = Field(
        HANG_TIMEOUT_SECONDS,
        ge=60,
        le=86400,
        description="An attempt without a step or other progress for this long is ended, and the next one continues "
        "from the last checkpoint.",
    )
