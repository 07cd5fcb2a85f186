"""What is the same for all jobs, as far as `decide` needs it: mostly what the administrator set."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from finetune_api.compute import DEFAULT_REQUESTS, Resources
from finetune_api.plan import Defaults
from finetune_api.spec import Stage
from finetune_operator.neighbours import FullList

DEFAULT_RESOURCES: Mapping[Stage, Resources] = {
    stage: Resources(requests=dict(requests)) for stage, requests in DEFAULT_REQUESTS.items()
}


@dataclass(frozen=True)
class Settings:
    """The part of the command line that shapes jobs, and facts about the operator itself."""

    # For new jobs; an accepted job keeps the image of its snapshot.
    trainer_image: str
    operator_version: str
    # The URL of the progress endpoint, such as https://finetune-operator.finetune-system.svc:8443.
    progress_url_base: str
    # The certificate authority of the progress endpoint.
    ca_pem: str
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    defaults: Defaults = field(default_factory=Defaults)
    # For stages that spec.compute.resources does not mention.
    resources: Mapping[Stage, Resources] = field(default_factory=lambda: DEFAULT_RESOURCES)
    # None: the cluster's id is not known, so that nothing is cleaned up.
    full_list: FullList | None = None
