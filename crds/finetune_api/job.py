"""The custom resource as a whole."""

from typing import Annotated

from pydantic import ConfigDict, Field

from finetune_api.base import Model
from finetune_api.spec import FineTuneJobSpec
from finetune_api.status import FineTuneJobStatus

# The operator appends -<uid[:5]>-<stage>-<attempt>, and Kubernetes appends -<random> to a pod's name: 63 in all.
MAXIMUM_NAME_LENGTH = 40


class ObjectMeta(Model):
    """The members of metadata that we read."""

    model_config = ConfigDict(extra="ignore")

    name: str
    namespace: str
    uid: str
    generation: int = 1
    resource_version: str = ""
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None


class FineTuneJob(Model):
    """A FineTuneJob as read from the API server."""

    metadata: ObjectMeta
    spec: FineTuneJobSpec
    status: Annotated[FineTuneJobStatus, Field()] = FineTuneJobStatus()
