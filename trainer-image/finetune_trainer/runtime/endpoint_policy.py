"""Checks the addresses of a job's servers against the administrator's policy before connecting."""

import socket
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from finetune_api import endpoints
from finetune_api.endpoints import Endpoint
from finetune_api.plan import Plan
from finetune_api.policy import Policy
from finetune_trainer.errors import NoAnswerError, SettingsError, UnavailableError
from finetune_trainer.network import patience


def check(plan: Plan) -> None:
    """Check every server that the plan names; without a policy all are allowed.

    Raises:
        SettingsError: the policy does not allow one.
        UnavailableError: a name cannot be resolved.
    """
    for endpoint in endpoints.of(plan):
        if plan.policy.endpoints:
            _check(plan.policy, endpoint.url, endpoint.field)


def check_source(policy: Policy, url: str, field: str) -> list[str]:
    """Check the server of a URL that any user may write, and return the addresses to connect to.

    A server on the node or in the pod itself (cloud metadata and agents on link-local and loopback addresses) needs an
    entry in the policy for exactly this host, or for a range of such addresses.

    Raises:
        SettingsError: the server is not allowed.
        UnavailableError: the name cannot be resolved.
    """
    host, _ = _host_and_port(url, field)
    _check(policy, url, field)
    addresses = _resolve(host, field)
    for address in addresses:
        if _is_of_the_node(address) and not _is_meant(policy, url, field, address):
            raise SettingsError(
                f"{field} leads to {_named(host, address)}, which belongs to the node that the job runs on; "
                "use another server, or ask the administrator to add exactly this host to policy.endpoints of the chart"
            )
    return addresses


def _check(policy: Policy, url: str, field: str) -> None:
    if (refused := endpoints.refused(policy, [Endpoint(field, url)])) is not None:
        raise SettingsError(refused.rstrip("."))
    host, port = _host_and_port(url, field)
    if endpoints.allowed_address(policy, host, port, []):
        return
    addresses = _resolve(host, field)
    if not endpoints.allowed_address(policy, host, port, addresses):
        outside = next(a for a in addresses if not endpoints.allowed_address(policy, host, port, [a]))
        raise SettingsError(
            f"{field} leads to {_named(host, outside)}, which is not among the servers that the administrator allows "
            "(policy.endpoints of the chart); use another one, or have this one added"
        )


def _host_and_port(url: str, field: str) -> tuple[str, int]:
    found = endpoints.host_and_port(url)
    if found is None:
        raise SettingsError(f"{field} has a host that not all programs parse in the same way; correct it")
    return found


def _resolve(host: str, field: str) -> list[str]:
    return patience.patiently(lambda: _looked_up(host, field))


def _looked_up(host: str, field: str) -> list[str]:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        message = f"{field} leads to {host}, which cannot be looked up; check its spelling and the cluster's DNS"
        if isinstance(error, UnicodeError):
            raise UnavailableError(message) from error
        raise NoAnswerError(message, unknown_name=patience.is_unknown_name(error)) from error
    # Without the zone of a link-local address.
    return list(dict.fromkeys(str(entry[4][0]).partition("%")[0] for entry in found))


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _plain(address: str) -> IPv4Address | IPv6Address:
    found = ip_address(address)
    # An IPv4 address in IPv6 notation reaches the IPv4 address.
    return getattr(found, "ipv4_mapped", None) or found


def _is_of_the_node(address: str) -> bool:
    found = _plain(address)
    # The unspecified address leads to the loopback one.
    return found.is_link_local or found.is_loopback or found.is_unspecified


def _is_meant(policy: Policy, url: str, field: str, address: str) -> bool:
    def means_it(entry: str) -> bool:
        if "/" in entry:
            network = ip_network(entry)
            return network.is_link_local or network.is_loopback
        return not entry.startswith("*")

    exact = Policy(endpoints=[entry for entry in policy.endpoints if means_it(entry)])
    host, port = _host_and_port(url, field)
    return bool(exact.endpoints) and endpoints.allowed_address(exact, host, port, [address])


def _named(host: str, address: str) -> str:
    return host if _is_address(host) else f"{host} ({address})"
