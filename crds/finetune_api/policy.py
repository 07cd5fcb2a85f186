"""The administrator's limits: the chart's `policy` block."""

import re
from ipaddress import ip_address, ip_network
from typing import Annotated

from pydantic import AfterValidator, Field

from finetune_api.base import Model

# A host name, or an IPv4 address; then a port. IPv6 addresses are in brackets, as in URLs.
_NAME = re.compile(r"(\*\.)?[A-Za-z0-9_]([-A-Za-z0-9_.]*[A-Za-z0-9_])?(:[0-9]{1,5})?")


def _entry(value: str) -> str:
    try:
        if "/" in value:
            ip_network(value)
            return value
        if value.startswith("["):
            address, _, port = value[1:].partition("]")
            ip_address(address)
            if re.fullmatch("(:[0-9]{1,5})?", port):
                return value
        elif _NAME.fullmatch(value):
            return value
    except ValueError:
        pass
    raise ValueError("must be host, host:port, *.domain or an address range such as 10.0.0.0/8")


class Policy(Model):
    """Limits of all jobs. Empty lists allow everything."""

    endpoints: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=253), AfterValidator(_entry)]], Field(max_length=64)
    ] = Field(
        [],
        description="Hosts that jobs may name as S3, hub, http or MLflow server: host, host:port, *.domain (the "
        "domain and all below it), or an address range such as 10.0.0.0/8.",
    )
