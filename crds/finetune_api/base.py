"""The model base and the scalar types that the API shares."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel


class Model(BaseModel):
    """A frozen model with camelCase JSON.

    Unknown members are ignored: a newer CRD must not break an older operator. The API server is the strict one.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel, populate_by_name=True)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form: camelCase, unset and None members left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def rules(*pairs: tuple[str, str]) -> dict[str, Any]:
    """Return CEL rules as schema extras, from (rule, message) pairs. The message is what a user reads."""
    return {"x-kubernetes-validations": [{"rule": rule, "message": message} for rule, message in pairs]}


def exactly_one_of(*members: str) -> tuple[str, str]:
    """Return the CEL rule of a union whose members are optional fields of one object."""
    count = " + ".join(f"(has(self.{m}) ? 1 : 0)" for m in members)
    return f"({count}) == 1", f"exactly one of {', '.join(members)} must be set"


def at_most_one_of(*members: str) -> tuple[str, str]:
    """Return the CEL rule of mutually exclusive optional fields."""
    count = " + ".join(f"(has(self.{m}) ? 1 : 0)" for m in members)
    return f"({count}) <= 1", f"at most one of {', '.join(members)} may be set"


# Floats do not survive the trip through YAML, JSON, Go and CEL unchanged, so decimals are strings.
Decimal = Annotated[str, Field(pattern=r"^(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?$", max_length=32)]
# The same, but below zero too: a measured value such as a loss difference.
SignedDecimal = Annotated[str, Field(pattern=r"^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?$", max_length=32)]
Name = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")]
Key = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$")]
# A path inside a volume: relative, and no segment may climb out of it.
RelativePath = Annotated[str, Field(min_length=1, max_length=1024)]
ShortText = Annotated[str, Field(max_length=256)]
Message = Annotated[str, Field(max_length=4096)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", max_length=64)]
Timestamp = Annotated[str, Field(max_length=64, json_schema_extra={"format": "date-time"})]
Quantity = Annotated[
    str,
    Field(
        max_length=32,
        pattern=r"^[0-9]+(\.[0-9]{1,3})?(m|k|Ki|M|Mi|G|Gi|T|Ti)?$",
        # Kubernetes accepts `cpu: 2` as well as `cpu: "2"`.
        json_schema_extra={"x-kubernetes-int-or-string": True},
    ),
]
