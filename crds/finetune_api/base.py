"""The model base and the scalar types that the API shares."""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel

# Schema extra beside `pattern`: the CRD then checks the pattern by a rule with this message.
PATTERN_MESSAGE = "x-pattern-message"


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


def check_one_of(model: Model, *members: str) -> None:
    """Check a union whose members are optional fields of one object.

    The API server does so too, but by its CRD, which may be newer than this code and know more members.

    Raises:
        ValueError: not exactly one is set.
    """
    found = [m for m in members if getattr(model, m) is not None]
    if len(found) != 1:
        raise ValueError(f"exactly one of {', '.join(map(to_camel, members))} must be set, and {len(found)} are")


def at_most_one_of(*members: str) -> tuple[str, str]:
    """Return the CEL rule of mutually exclusive optional fields."""
    count = " + ".join(f"(has(self.{m}) ? 1 : 0)" for m in members)
    return f"({count}) <= 1", f"at most one of {', '.join(members)} may be set"


def patterned(
    pattern: str, message: str, *, max_length: int, min_length: int | None = None, description: str | None = None
) -> Any:
    """Return the Field of a string with a pattern; `message` is what users read instead of the pattern."""
    return Field(
        pattern=pattern,
        min_length=min_length,
        max_length=max_length,
        description=description,
        json_schema_extra={PATTERN_MESSAGE: message},
    )


# Floats do not survive the trip through YAML, JSON, Go and CEL unchanged, so decimals are strings.
_DECIMAL = r"^(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?$"
Decimal = Annotated[
    str, patterned(_DECIMAL, 'must be a decimal number in quotes, such as "2e-4" or "0.05"', max_length=32)
]
# The same, but may be negative: a measured value such as a loss difference.
SignedDecimal = Annotated[str, Field(pattern=r"^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?$", max_length=32)]
Name = Annotated[
    str,
    patterned(
        r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$",
        "must be the name of an object: lower-case letters, digits, '-' and '.'",
        min_length=1,
        max_length=253,
    ),
]
Key = Annotated[
    str,
    patterned(r"^[-._a-zA-Z0-9]+$", "must be a key: letters, digits, '-', '_' and '.'", min_length=1, max_length=253),
]
# A path inside a volume: relative, and no segment may climb out of it.
RelativePath = Annotated[
    str,
    Field(
        min_length=1,
        max_length=1024,
        json_schema_extra=rules(
            (
                "!self.startsWith('/') && !self.split('/').exists(s, s == '..')",
                "must be relative to the root of the volume: no leading '/' and no '..'",
            )
        ),
    ),
]
ShortText = Annotated[str, Field(max_length=256)]
# Characters. Longer messages are cut.
MAXIMUM_MESSAGE = 4096
Message = Annotated[str, Field(max_length=MAXIMUM_MESSAGE)]
Sha256 = Annotated[str, patterned(r"^[0-9a-f]{64}$", "must be 64 hexadecimal digits in lower case", max_length=64)]
Timestamp = Annotated[str, Field(max_length=64, json_schema_extra={"format": "date-time"})]
_QUANTITY = r"^[0-9]+(\.[0-9]{1,3})?(m|k|Ki|M|Mi|G|Gi|T|Ti)?$"


def _number_to_text(value: Any) -> Any:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


Quantity = Annotated[
    str,
    Field(
        max_length=32,
        pattern=_QUANTITY,
        json_schema_extra={
            "x-kubernetes-int-or-string": True,
            PATTERN_MESSAGE: "must be a quantity such as 500m, 4 or 32Gi",
        },
    ),
    # Kubernetes accepts `cpu: 2` as well as `cpu: "2"`, and so do we.
    BeforeValidator(_number_to_text),
]


def decimal_range(condition: str, message: str) -> dict[str, Any]:
    """Return the rule of a Decimal's range. `condition` speaks of `value`, a double."""
    # Only for decimals, so that one mistake gives one message.
    return rules((f"!self.matches(r'{_DECIMAL}') || {condition.replace('value', 'double(self)')}", message))
