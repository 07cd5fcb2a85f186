"""Render the CustomResourceDefinition from the models: a structural schema from pydantic's JSON schema."""

import json
from typing import Any

from finetune_api import GROUP, KIND, PLURAL, VERSION
from finetune_api.base import PATTERN_MESSAGE
from finetune_api.job import MAXIMUM_NAME_LENGTH
from finetune_api.spec import PLANNED_MEMBERS, FineTuneJobSpec
from finetune_api.status import FineTuneJobStatus

# JSON schema keywords that apiextensions v1 does not know (JSONSchemaProps), or refuses in a structural schema.
_DROPPED = ("title", "additionalProperties", "const", "default", "$defs", "discriminator")

_COLUMNS: tuple[tuple[str, str, str, int], ...] = (
    # name, type, path, priority (1: wide only)
    ("State", "string", ".status.phase", 0),
    ("Stage", "string", ".status.stage", 0),
    ("Activity", "string", ".status.progress.activity", 0),
    ("Progress", "string", ".status.progress.completed", 0),
    ("Loss", "string", ".status.progress.loss", 0),
    ("ETA", "string", ".status.progress.eta", 0),
    ("Verdict", "string", ".status.evaluation.verdict", 0),
    ("Reason", "string", '.status.conditions[?(@.type=="Ready")].reason', 0),
    ("Age", "date", ".metadata.creationTimestamp", 0),
    # As the job names it: a union, of which exactly one member is there.
    ("Model", "string", ".spec.model['huggingFace.repository','s3.uri','persistentVolumeClaim.claimName']", 1),
    ("Tokens/s", "integer", ".status.progress.tokensPerSecond", 1),
    ("Output", "string", ".status.outputUri", 1),
)


def structural(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """Turn a pydantic JSON schema node into a structural schema node.

    References are inlined, `X | None` becomes an optional X, and defaults move into the description: the operator
    fills them in when it renders the plan, so that a stored object has only what its user wrote.

    Raises:
        ValueError: the node is a union that has no structural form.
    """
    if "$ref" in schema:
        target = definitions[schema["$ref"].rsplit("/", 1)[-1]]
        siblings = {k: v for k, v in schema.items() if k != "$ref"}
        return structural({**target, **siblings}, definitions)
    if "anyOf" in schema:
        branches = [b for b in schema["anyOf"] if b.get("type") != "null"]
        if len(branches) != 1:
            raise ValueError(f"no structural form for the union {schema['anyOf']}")
        siblings = {k: v for k, v in schema.items() if k != "anyOf"}
        return structural({**branches[0], **siblings}, definitions)

    node = {k: v for k, v in schema.items() if k not in _DROPPED}
    if "const" in schema:
        node["enum"] = [schema["const"]]
    default = schema.get("default")
    if default is not None and not isinstance(default, dict | list):
        # As it is written in YAML: decimals are strings and need their quotes.
        text = json.dumps(default)
        node["description"] = f"{node.get('description', '')} Default: {text}.".strip()
    whole_number = ""
    if node.get("x-kubernetes-int-or-string"):
        # The API server wants this extension instead of a type.
        del node["type"]
        whole_number = "type(self) == int || "
    message = node.pop(PATTERN_MESSAGE, None)
    if message:
        rule = f"{whole_number}self.matches(r'{node.pop('pattern')}')"
        others = node.get("x-kubernetes-validations", [])
        node["x-kubernetes-validations"] = [{"rule": rule, "message": message}, *others]
    if "properties" in node:
        node["properties"] = {k: structural(v, definitions) for k, v in node["properties"].items()}
    if "items" in node:
        node["items"] = structural(node["items"], definitions)
    extra = schema.get("additionalProperties")
    if isinstance(extra, dict) and "properties" not in node:
        node["additionalProperties"] = structural(extra, definitions)
        node.pop("propertyNames", None)
    return node


def _schema(model: type[FineTuneJobSpec] | type[FineTuneJobStatus]) -> dict[str, Any]:
    raw = model.model_json_schema(by_alias=True, mode="validation")
    return structural(raw, raw.get("$defs", {}))


# Until a job is accepted, it has no snapshot. A user cannot write the status, so that the rule sees the stored one; it
# may be some seconds old, and the operator refuses what comes in between (`decide/spec_edit.py`).
_EDITABLE = (
    "!has(self.status) || !has(self.status.snapshot) || (has(self.status.specEditable) && self.status.specEditable)"
)


def _fixed(member: str) -> dict[str, str]:
    """Return the rule that a member of the spec changes only while the status allows it."""
    new, old = f"self.spec.{member}", f"oldSelf.spec.{member}"
    return {
        "rule": f"{_EDITABLE} || (has({new}) == has({old}) && (!has({new}) || {new} == {old}))",
        "message": f"{member} cannot be changed once the job has started. If the job fails before it trains, change it "
        "then, together with a higher retryGeneration. To use the change now, create a FineTuneJob with a new name, or "
        "run kubectl replace --force -f FILE: it deletes this job, and its training starts again from the beginning",
        "fieldPath": f".spec.{member}",
    }


def render() -> dict[str, Any]:
    """Return the CustomResourceDefinition as a dictionary."""
    status = _schema(FineTuneJobStatus)
    # Makes kstatus report InProgress, not Current, for a job that the operator has not seen yet.
    status["default"] = {"observedGeneration": -1}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": KIND.lower(),
                "shortNames": ["ftj"],
                "categories": ["all"],
            },
            "scope": "Namespaced",
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [
                        {"name": n, "type": t, "jsonPath": p, "priority": w} for n, t, p, w in _COLUMNS
                    ],
                    "schema": {
                        "openAPIV3Schema": {
                            "type": "object",
                            "description": "Fine-tunes a language model and leaves the result in an S3 bucket.",
                            "required": ["spec"],
                            "properties": {
                                "apiVersion": {"type": "string"},
                                "kind": {"type": "string"},
                                "metadata": {"type": "object"},
                                "spec": _schema(FineTuneJobSpec),
                                "status": status,
                            },
                            "x-kubernetes-validations": [
                                {
                                    "rule": f"self.metadata.name.size() <= {MAXIMUM_NAME_LENGTH}",
                                    "message": f"metadata.name must have at most {MAXIMUM_NAME_LENGTH} characters",
                                },
                                {
                                    "rule": "!self.metadata.name.contains('.')",
                                    "message": "metadata.name must not contain a dot",
                                },
                                *map(_fixed, PLANNED_MEMBERS),
                            ],
                        }
                    },
                }
            ],
        },
    }
