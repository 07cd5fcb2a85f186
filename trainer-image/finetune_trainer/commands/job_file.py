"""Reads a FineTuneJob from a local file, as strictly as the API server."""

import difflib
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from finetune_api.job import FineTuneJob
from finetune_api.spec import FineTuneJobSpec
from finetune_trainer.errors import SettingsError
from finetune_trainer.runtime.plan_file import first_fault

_NAMESPACE = "default"
_UID = "local"


def read(path: Path) -> FineTuneJob:
    """Return the job in a YAML file.

    Raises:
        SettingsError: the file is no valid FineTuneJob, or has a field that a FineTuneJob does not have.
    """
    import yaml

    try:
        content: Any = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict) or content.get("kind") != "FineTuneJob":
        raise SettingsError(f"{path} is not a FineTuneJob; its kind must be FineTuneJob")
    if unknown := list(_unknown(content.get("spec"), FineTuneJobSpec, "spec")):
        raise SettingsError(f"{path}: {'; '.join(unknown)}")
    # The API server would fill these in.
    metadata = {"namespace": _NAMESPACE, "uid": _UID} | (content.get("metadata") or {})
    try:
        return FineTuneJob.model_validate(content | {"metadata": metadata})
    except ValidationError as error:
        raise SettingsError(f"{path} is not valid: {first_fault(error)}") from error


def _unknown(value: Any, annotation: Any, path: str) -> Iterator[str]:
    """Yield a sentence for each field that no model at its place has."""
    models = list(_models(annotation))
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _unknown(item, annotation, f"{path}[{index}]")
    elif isinstance(value, dict) and models:
        known = {field.alias or name: field for model in models for name, field in model.model_fields.items()}
        for name, member in value.items():
            if name in known:
                yield from _unknown(member, known[name].annotation, f"{path}.{name}")
                continue
            near = difflib.get_close_matches(str(name), known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            yield f'unknown field "{path}.{name}"{hint}'


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the models of a field's type; the values of a mapping with free keys have none."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif typing.get_origin(annotation) is not dict:
        for part in typing.get_args(annotation):
            yield from _models(part)
