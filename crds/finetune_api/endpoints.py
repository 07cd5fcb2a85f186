"""The servers that a job connects to, and whether the administrator's policy allows them."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from urllib.parse import urlsplit

from finetune_api.plan import ModelPlan, Plan, S3Target, SourcePlan, WeightsPlan
from finetune_api.policy import Policy

AWS = "https://amazonaws.com"
HUB = "https://huggingface.co"
# Programs disagree on where the host of a URL ends if it has other characters, such as a backslash.
_HOST = re.compile(r"[\w.-]+")


@dataclass(frozen=True)
class Endpoint:
    """A server that a job connects to. `field` is the field of the spec that names it, or could."""

    field: str
    url: str


def of(plan: Plan) -> list[Endpoint]:
    """Return every server of a plan. S3 without an endpoint is listed as AWS, a hub without one as huggingface.co."""
    return list(_all(plan))


def refused(policy: Policy, endpoints: Iterable[Endpoint]) -> str | None:
    """Return what is wrong, in one sentence, if a server is certainly not allowed; None otherwise.

    Names are not resolved. If the policy has address ranges, a name that it does not list is checked on connection:
    see `allowed_address`.
    """
    if not policy.endpoints:
        return None
    for endpoint in endpoints:
        found = host_and_port(endpoint.url)
        if found is None:
            return f"{endpoint.field} has no host that can be compared with what the administrator allows; correct it."
        host, port = found
        if not (_is_listed(policy, host, port) or _may_be_in_a_range(policy, host)):
            return (
                f"{endpoint.field} leads to {host}, which is not among the servers that the administrator allows "
                "(policy.endpoints of the chart); use another one, or have this one added."
            )
    return None


def allowed_address(policy: Policy, host: str, port: int, addresses: Sequence[str]) -> bool:
    """Return whether a connection to `host` is allowed, whose name resolves to `addresses` (IPv4 or IPv6, as text).

    Either the host is listed, or each address is in a listed range: any of them may be the one that is used.

    Raises:
        ValueError: an address is invalid.
    """
    if not policy.endpoints or _is_listed(policy, _normal(host), port):
        return True
    return bool(addresses) and all(_in_a_range(policy, address) for address in addresses)


def host_and_port(url: str) -> tuple[str, int] | None:
    """Return the host in its one spelling and the port, or None for a URL on whose host programs may disagree."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return None
    if not _is_address(host) and not _HOST.fullmatch(host):
        return None
    return _normal(host), port if port is not None else {"http": 80}.get(parts.scheme, 443)


def _all(plan: Plan) -> Iterator[Endpoint]:
    yield from _s3("spec.output.s3", plan.output.s3)
    model = plan.model
    yield from _weights("spec.model", model)
    if model.adapter:
        yield from _s3("spec.model.adapter.s3", model.adapter.s3)
    for index, source in enumerate(plan.dataset.sources):
        yield from _source(f"spec.dataset.sources[{index}]", source)
    for index, source in enumerate(plan.dataset.holdout_sources):
        yield from _source(f"spec.dataset.holdout.sources[{index}]", source)
    if plan.export.original:
        yield from _weights("spec.export.originalModel", plan.export.original)
    if plan.mlflow:
        yield Endpoint("spec.tracking.mlflow.uri", plan.mlflow.uri)


def _weights(field: str, plan: ModelPlan | WeightsPlan) -> Iterator[Endpoint]:
    yield from _s3(f"{field}.s3", plan.s3)
    if plan.hub:
        yield Endpoint(f"{field}.huggingFace", plan.hub.endpoint or HUB)


def _source(field: str, source: SourcePlan) -> Iterator[Endpoint]:
    yield from _s3(f"{field}.s3", source.s3)
    if source.hub:
        yield Endpoint(f"{field}.huggingFace.endpoint", source.hub.endpoint or HUB)
    if source.url:
        yield Endpoint(f"{field}.http.url", source.url)


def _s3(field: str, target: S3Target | None) -> Iterator[Endpoint]:
    if target:
        yield Endpoint(f"{field}.endpoint", target.endpoint or AWS)


def _normal(host: str) -> str:
    """One spelling of a host: lower case, no dot at the end, addresses in their shortest form without brackets."""
    bare = host.strip("[]")
    return str(ip_address(bare)) if _is_address(bare) else host.lower().rstrip(".")


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _is_listed(policy: Policy, host: str, port: int) -> bool:
    for entry in policy.endpoints:
        if "/" in entry:
            continue
        name, colon, digits = entry.rpartition(":") if re.search(r":[0-9]+$", entry) else (entry, "", "")
        if colon and int(digits) != port:
            continue
        if name.startswith("*."):
            domain = _normal(name[2:])
            if host == domain or host.endswith(f".{domain}"):
                return True
        elif host == _normal(name):
            return True
    return False


def _may_be_in_a_range(policy: Policy, host: str) -> bool:
    if _is_address(host):
        return _in_a_range(policy, host)
    return any("/" in entry for entry in policy.endpoints)


def _in_a_range(policy: Policy, address: str) -> bool:
    found = ip_address(address)
    # An IPv4 address in IPv6 notation reaches the IPv4 address.
    found = getattr(found, "ipv4_mapped", None) or found
    return any(found in ip_network(entry) for entry in policy.endpoints if "/" in entry)
