"""Reads plan.json: the checksum first, then the version, then the content."""

import json
from pathlib import Path

from pydantic import ValidationError

from finetune_api import plan as api
from finetune_api.plan import Plan
from finetune_trainer.errors import SettingsError


def load(path: Path, expected_sha256: str | None) -> Plan:
    """Return the plan in `path`.

    Raises:
        SettingsError: the file is missing, has another checksum, is of another version, or is not a plan.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SettingsError(f"the plan {path} cannot be read: {error.strerror}; pass its path as --plan") from error
    if expected_sha256 is not None and api.sha256(data) != expected_sha256:
        raise SettingsError(
            f"the plan {path} was changed after the job was accepted: its sha256 is {api.sha256(data)}, "
            f"not {expected_sha256}; delete this FineTuneJob and create it again"
        )
    return parse(data, str(path))


def parse(data: bytes, name: str) -> Plan:
    """Return the plan in `data`; messages call it `name`.

    Raises:
        SettingsError: it is of another version, or is not a plan.
    """
    try:
        content = json.loads(data)
    except ValueError as error:
        raise SettingsError(f"the plan {name} is not JSON; render it with `python -m finetune_trainer plan`") from error
    version = content.get("planVersion") if isinstance(content, dict) else None
    if type(version) is not int or not 1 <= version <= api.PLAN_VERSION:
        raise SettingsError(
            f"the plan {name} has planVersion {version}, and this trainer reads 1 to {api.PLAN_VERSION}; "
            "use the trainer image that belongs to the operator's version"
        )
    try:
        return Plan.model_validate(content)
    except ValidationError as error:
        raise SettingsError(f"the plan {name} is not valid: {first_fault(error)}") from error


def first_fault(error: ValidationError) -> str:
    """Name the first wrong field and what is wrong with it, without its value."""
    fault = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(str(p) for p in fault['loc']) or 'the document'}: {fault['msg']}"
