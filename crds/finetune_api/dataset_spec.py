"""The training examples: `spec.dataset`."""

from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from finetune_api.base import (
    Model,
    RelativePath,
    Sha256,
    at_most_one_of,
    check_one_of,
    exactly_one_of,
    patterned,
    rules,
)
from finetune_api.references import ConfigMapKeyRef, HttpBase, S3Object, SecretKeyRef, VolumePath

DatasetFormat = Literal["Auto", "Alpaca", "ShareGPT", "Messages", "PromptCompletion", "Text", "Preference", "Binary"]


class HuggingFaceDataset(Model):
    """One file of a dataset repository on the Hugging Face hub, or on a mirror."""

    repository: Annotated[
        str,
        patterned(
            r"^[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?$",
            "must be <owner>/<name> on the hub, not a URL or a path",
            max_length=200,
        ),
    ]
    path: RelativePath = Field(description="The file in the repository, such as data/train.parquet.")
    revision: Annotated[
        str,
        patterned(r"^[A-Za-z0-9]\w*([./-]\w+)*$", "must be a branch, a tag or a commit", max_length=200),
    ] = Field("main", description="Branch, tag or commit.")
    endpoint: HttpBase | None = Field(None, description="Base URL of a mirror. Left out: the one that the chart names.")
    token_secret_ref: SecretKeyRef | None = Field(None, description="Access token, for private repositories.")


class HttpFile(Model):
    """A file on a web server."""

    url: Annotated[
        str,
        patterned(
            r"^https?://[^/\s@]+/[^\s]*[^\s/]$",
            "must be http(s)://<host>/<path> of one file, without user and password",
            max_length=2048,
        ),
    ]
    sha256: Sha256 = Field(description="The bytes must have this checksum: sha256sum FILE.")


class DatasetSource(Model):
    """One file of training examples: JSON Lines, JSON, CSV or Parquet. It is in exactly one place."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            exactly_one_of("configMap", "s3", "persistentVolumeClaim", "huggingFace", "http"),
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
    hugging_face: HuggingFaceDataset | None = Field(None, description="A file of a dataset repository.")
    http: HttpFile | None = Field(None, description="A file on a web server.")
    format: DatasetFormat | None = Field(None, description="Format of this source. Left out: dataset.format.")

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        check_one_of(self, "config_map", "s3", "persistent_volume_claim", "hugging_face", "http")
        return self


class DatasetChecks(Model):
    """Checks that run before the job asks for a GPU."""

    minimum_examples: int = Field(
        50, ge=1, le=1_000_000, description="With fewer valid examples the job fails before it asks for a GPU."
    )
    invalid_rows: Literal["Fail", "Drop"] = Field("Fail", description="Drop leaves invalid rows out and counts them.")
    duplicates: Literal["Drop", "Keep"] = Field(
        "Drop", description="Drop leaves out rows that are the same as an earlier one, or nearly the same."
    )
    truncation: Literal["Warn", "Drop", "Fail"] = Field(
        "Warn", description="Rows longer than model.maxSequenceLength are cut (Warn), left out, or refused."
    )


# If neither percent nor sources are given.
HOLDOUT_PERCENT = 5


class Holdout(Model):
    """The rows held out to judge the result."""

    model_config = ConfigDict(json_schema_extra=rules(at_most_one_of("percent", "sources")))

    percent: int | None = Field(
        None,
        ge=1,
        le=20,
        description="Percentage of the rows: at most 200 rows, and at least 20 if that is no more than 20 %. "
        f"Left out, without sources: {HOLDOUT_PERCENT}.",
    )
    sources: Annotated[list[DatasetSource], Field(min_length=1, max_length=4)] | None = Field(
        None, description="Files of examples to hold out, instead of a share of the dataset."
    )


# The fields of all formats, which `columns` can map.
COLUMNS = (
    "instruction", "input", "output", "system", "messages", "conversations", "prompt", "completion", "text",
    "chosen", "rejected", "label",
)  # fmt: skip
Columns = Annotated[
    dict[Annotated[str, Field(max_length=32)], Annotated[str, Field(min_length=1, max_length=256)]],
    Field(
        max_length=len(COLUMNS),
        json_schema_extra=rules(
            (
                f"self.all(k, k in [{', '.join(repr(c) for c in COLUMNS)}])",
                f"the fields that can be mapped are {', '.join(COLUMNS)}",
            )
        ),
    ),
]


class DatasetSpec(Model):
    """The training examples."""

    model_config = ConfigDict(json_schema_extra=rules(at_most_one_of("promptTemplate", "templateRef")))

    sources: Annotated[list[DatasetSource], Field(min_length=1, max_length=16)] = Field(
        description="Files of examples, concatenated in this order."
    )
    format: DatasetFormat = Field(
        "Auto",
        description='Alpaca: {"instruction": ..., "input": ..., "output": ...}. '
        'ShareGPT: {"conversations": [{"from": "human", "value": ...}, {"from": "gpt", "value": ...}]}. '
        'Messages: {"messages": [{"role": "user", "content": ...}, {"role": "assistant", "content": ...}]}. '
        'PromptCompletion: {"prompt": ..., "completion": ...}. Text: {"text": ...}, learned as it is. '
        'Preference: {"prompt": ..., "chosen": ..., "rejected": ...}, for DPO and ORPO. '
        'Binary: {"prompt": ..., "completion": ..., "label": true}, for KTO. '
        "Auto: detected from the first row of each source.",
    )
    columns: Columns | None = Field(
        None, description="Your names for the fields, such as {instruction: 질문, output: 답변}."
    )
    prompt_template: Literal["Auto", "Model", "Alpaca"] | None = Field(
        None,
        description="Model: the tokenizer's chat template. Alpaca: the Alpaca text. "
        "Auto: the chat template if the weights know its tokens, else Alpaca. Left out, without templateRef: Auto.",
    )
    template_ref: ConfigMapKeyRef | None = Field(
        None, description="Your own chat template (Jinja) in a ConfigMap, instead of promptTemplate."
    )
    chat_template_kwargs: (
        Annotated[
            dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=256)]], Field(max_length=16)
        ]
        | None
    ) = Field(
        None,
        description='Values that the chat template reads, such as {enable_thinking: "false"}. '
        "true, false and whole numbers are passed as such.",
    )
    system_prompt: Annotated[str, Field(min_length=1, max_length=8192)] | None = Field(
        None, description="System prompt for every example without one of its own."
    )
    checks: DatasetChecks = DatasetChecks()
    holdout: Holdout = Holdout()
