"""The FineTuneJob API: the only definition of the custom resource and of the contracts between programs.

Imports pydantic and the standard library only, so that every program can afford it.
"""

GROUP = "finetune.dev"
VERSION = "v1alpha1"
KIND = "FineTuneJob"
PLURAL = "finetunejobs"
API_VERSION = f"{GROUP}/{VERSION}"
