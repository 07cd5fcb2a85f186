"""What the administrator allows: the chart's `policy` block."""

from typing import Annotated

from pydantic import Field

from finetune_api.base import Model


class Policy(Model):
    """Limits of all jobs. Empty lists allow everything."""

    endpoints: Annotated[list[Annotated[str, Field(min_length=1, max_length=253)]], Field(max_length=64)] = Field(
        [],
        description="Hosts that jobs may name as S3, hub, http or MLflow server: host, host:port, *.domain, or an "
        "address range such as 10.0.0.0/8.",
    )
