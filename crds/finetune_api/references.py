"""What a spec points at: Secrets, ConfigMaps, S3 locations and volumes."""

from typing import Annotated

from pydantic import Field

from finetune_api.base import Key, Model, Name, RelativePath, Sha256, patterned


class SecretKeyRef(Model):
    """One key of a Secret in the job's own namespace."""

    name: Name
    key: Key


class SecretRef(Model):
    """A Secret in the job's own namespace."""

    name: Name


class ConfigMapKeyRef(Model):
    """One key of a ConfigMap in the job's own namespace."""

    name: Name
    key: Key


class CABundle(Model):
    """Extra certificate authorities, PEM."""

    config_map: ConfigMapKeyRef


HttpBase = Annotated[
    str,
    patterned(r"^https?://[^/\s@]+$", "must be http(s)://<host>[:<port>], without a path", max_length=512),
]


class S3Connection(Model):
    """How to reach an S3 server. Fields that are left out come from spec.output.s3, then from the chart."""

    endpoint: HttpBase | None = Field(
        None,
        description="Base URL of the S3 server, such as https://minio.corp:9000. Left out everywhere: AWS.",
    )
    region: (
        Annotated[
            str,
            patterned(r"^[a-z0-9-]+$", "must be a region such as us-east-1", max_length=64),
        ]
        | None
    ) = Field(None, description="Region of the bucket. Most on-premises servers accept us-east-1.")
    force_path_style: bool | None = Field(
        None,
        description="true: https://server/bucket, as most on-premises servers expect. false: https://bucket.server.",
    )
    credentials_secret_ref: SecretRef | None = Field(
        None,
        description="Secret with AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and optionally AWS_SESSION_TOKEN. "
        "Left out: the pod's own identity.",
    )
    ca_bundle: CABundle | None = Field(
        None, description="Certificate authorities (PEM) to trust for the endpoint, besides the public ones."
    )


_BUCKET = r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"
S3FolderUri = Annotated[
    str,
    patterned(
        rf"{_BUCKET}(/[^\s]*)?$",
        "must be s3://<bucket> or s3://<bucket>/<folder>/",
        max_length=1024,
        description="Bucket and folder, such as s3://models/llama-3-8b/.",
    ),
]
S3ObjectUri = Annotated[
    str,
    patterned(
        rf"{_BUCKET}/[^\s]*[^\s/]$",
        "must be s3://<bucket>/<key> of one file, not a folder",
        max_length=1024,
        description="Bucket and key of one file, such as s3://data/train.jsonl.",
    ),
]


class S3Location(S3Connection):
    """A folder (prefix) in a bucket."""

    uri: S3FolderUri


class S3Object(S3Connection):
    """One object in a bucket."""

    uri: S3ObjectUri
    sha256: Sha256 | None = Field(None, description="If set, the bytes must have this checksum.")


class VolumePath(Model):
    """A path in a PersistentVolumeClaim of the job's own namespace."""

    claim_name: Name = Field(description="Name of the PersistentVolumeClaim.")
    path: RelativePath = Field(".", description="Relative to the root of the volume.")
