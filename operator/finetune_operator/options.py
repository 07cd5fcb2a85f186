"""The operator's command line: everything an administrator can set, read once at the start.

The rights that the operator needs in the cluster are in the chart: `finetune-operator.rules` in
templates/_helpers.tpl, and templates/rbac.yaml.
"""

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from pydantic import ValidationError

from finetune_api.plan import Defaults

PullPolicy = Literal["Always", "IfNotPresent", "Never"]
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


@dataclass(frozen=True)
class Options:
    """The parsed command line.

    `watch_namespaces` is empty for all namespaces. Durations are seconds.
    """

    pod_namespace: str
    pod_name: str
    watch_namespaces: tuple[str, ...]
    trainer_image: str
    trainer_image_pull_policy: PullPolicy
    defaults: Defaults
    service_name: str
    tls_secret_name: str
    lease_name: str
    progress_port: int
    http_port: int
    workers: int
    resync_seconds: float
    log_level: str

    @property
    def service_host(self) -> str:
        """The name that pods reach the progress endpoint by, and that its certificate is made for."""
        return f"{self.service_name}.{self.pod_namespace}.svc"

    @property
    def progress_base_url(self) -> str:
        """The address of the progress endpoint as pods see it, through the Service."""
        return f"https://{self.service_host}:8443"


def _defaults(text: str) -> Defaults:
    try:
        return Defaults.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the document"
        raise argparse.ArgumentTypeError(f"{where}: {first['msg']}") from None


def _port(text: str) -> int:
    try:
        port = int(text)
    except ValueError:
        port = -1
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"{text} is not a port number")
    return port


def _positive(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number above 0")
    return number


def build_parser() -> argparse.ArgumentParser:
    """Return the parser; `--help` is the reference of the flags."""
    parser = argparse.ArgumentParser(
        prog="finetune_operator",
        description="Runs FineTuneJobs. The environment must name the operator's own pod: POD_NAMESPACE and POD_NAME.",
    )
    parser.add_argument(
        "--watch-namespace",
        action="append",
        default=[],
        metavar="NAME",
        help="serve FineTuneJobs of this namespace only; may be given several times (default: all namespaces)",
    )
    parser.add_argument(
        "--trainer-image", required=True, metavar="IMAGE", help="image of the prepare, train and export pods"
    )
    parser.add_argument(
        "--trainer-image-pull-policy",
        choices=get_args(PullPolicy),
        default="IfNotPresent",
        help="(default: %(default)s)",
    )
    parser.add_argument(
        "--defaults",
        type=_defaults,
        default=Defaults(),
        metavar="JSON",
        help="what jobs may leave out, an object with the optional members s3 (endpoint, region, forcePathStyle, "
        "credentialsSecretRef, caBundle), huggingFaceEndpoint and allowCPU; and what is allowed, policy (endpoints)",
    )
    parser.add_argument(
        "--service-name",
        default="finetune-operator",
        metavar="NAME",
        help="Service in front of --progress-port, serving port 8443 (default: %(default)s)",
    )
    parser.add_argument(
        "--tls-secret-name",
        default="finetune-operator-tls",
        metavar="NAME",
        help="existing Secret in POD_NAMESPACE that keeps the progress endpoint's certificate (default: %(default)s)",
    )
    parser.add_argument(
        "--lease-name",
        default="finetune-operator",
        metavar="NAME",
        help="Lease in POD_NAMESPACE by which the replicas agree on one that reconciles (default: %(default)s)",
    )
    parser.add_argument(
        "--progress-port",
        type=_port,
        default=8443,
        metavar="PORT",
        help="HTTPS, progress pushes (default: %(default)s)",
    )
    parser.add_argument(
        "--http-port",
        type=_port,
        default=8080,
        metavar="PORT",
        help="HTTP, /metrics /healthz /readyz (default: %(default)s)",
    )
    parser.add_argument(
        "--workers",
        type=_positive,
        default=16,
        metavar="N",
        help="jobs reconciled at the same time (default: %(default)s)",
    )
    parser.add_argument(
        "--resync-seconds",
        type=_positive,
        default=300,
        metavar="S",
        help="time between full lists, which heal lost watch events (default: %(default)s)",
    )
    parser.add_argument("--log-level", choices=LOG_LEVELS, default="INFO", help="(default: %(default)s)")
    return parser


def parse(arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> Options:
    """Parse the command line; exits with status 2 and one sentence if it is wrong."""
    parser = build_parser()
    found = parser.parse_args(arguments)
    missing = [name for name in ("POD_NAMESPACE", "POD_NAME") if not environment.get(name)]
    if missing:
        parser.error(
            f"the environment variable {missing[0]} must name the operator's own pod (set it by the downward API)"
        )
    return Options(
        pod_namespace=environment["POD_NAMESPACE"],
        pod_name=environment["POD_NAME"],
        watch_namespaces=tuple(found.watch_namespace),
        trainer_image=found.trainer_image,
        trainer_image_pull_policy=found.trainer_image_pull_policy,
        defaults=found.defaults,
        service_name=found.service_name,
        tls_secret_name=found.tls_secret_name,
        lease_name=found.lease_name,
        progress_port=found.progress_port,
        http_port=found.http_port,
        workers=found.workers,
        resync_seconds=float(found.resync_seconds),
        log_level=found.log_level,
    )
