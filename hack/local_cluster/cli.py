"""The command line of ``hack/cluster``."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from . import cluster, images, reset
from .api import ApiError
from .build import GROUPS, build
from .layout import DEFAULT_NAME, ClusterError, Layout, binaries
from .processes import alive
from .state import State


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs the command and ends the program with its exit code."""
    options = _parser().parse_args(arguments)
    # As after Ctrl-C, what a build has half done is removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if options.command in ("status", "env"):
        # These only print, so a reader such as `head` may end them early.
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        code = _dispatch(options)
    except (ClusterError, ApiError) as error:
        print(f"error: {error}", file=sys.stderr)
        code = 1
    except KeyboardInterrupt:
        print("interrupted; run the same command again to continue", file=sys.stderr)
        code = 130
    sys.exit(code)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="cluster", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    def add(name: str, text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        if name != "build":
            command.add_argument("--name", default=DEFAULT_NAME, help="which cluster (default: %(default)s)")
        return command

    command = add("build", "Build the missing programs into $FINETUNE_CACHE/bin.")
    command.add_argument("--only", choices=sorted(GROUPS), default="all")

    command = add("up", "Start a cluster, or whatever of it does not run.")
    command.add_argument(
        "--control-plane-only",
        action="store_true",
        help="etcd, API server and controller manager on loopback; needs no root",
    )
    command.add_argument("--with-s3", action="store_true", help="a control plane with an S3 server")
    command.add_argument("--with-scheduler", action="store_true", help="a control plane with a scheduler")

    command = add("down", "End a cluster and remove all it made on this machine.")
    command.add_argument("--purge", action="store_true", help="remove its unpacked images from the cache too")
    add("status", "Show every component; the exit code is 0 if all are healthy.")

    command = add("reset", "Delete what users made; the cluster and its images stay.")
    command.add_argument(
        "--keep",
        action="append",
        default=[],
        metavar="NAMESPACE",
        help="a namespace to leave alone, such as the operator's (may be repeated)",
    )

    command = add("env", "Print shell exports to reach the cluster.")
    command.add_argument("--json", action="store_true", help="as a JSON object instead")

    command = add("restart", "Stop one component and start it again.")
    command.add_argument("component")

    command = add("kill", "Send a signal to one component and leave it so.")
    command.add_argument("component")
    command.add_argument("--signal", default="KILL", metavar="NAME", help="such as TERM or STOP (default: KILL)")

    command = add("push-image", "Push an image to the cluster's registry.")
    command.add_argument("image", help="a name in buildah's storage, or oci-archive:PATH for a file")
    command.add_argument("target", nargs="?", help="repository:tag to give it there (default: its own name)")
    return parser


def _dispatch(options: argparse.Namespace) -> int:
    if options.command == "build":
        build(options.only)
        print(f"all programs are in {binaries()}")
        return 0
    layout = Layout(options.name)
    match options.command:
        case "up":
            extra = ["versitygw"] * options.with_s3 + ["scheduler"] * options.with_scheduler
            cluster.up(options.name, full=not options.control_plane_only, extra=extra)
        case "down":
            cluster.down(options.name, purge=options.purge)
        case "status":
            return _status(cluster.running(layout))
        case "reset":
            reset.reset(cluster.running(layout), keep=options.keep)
        case "env":
            _environment(cluster.running(layout), as_json=options.json)
        case "restart":
            cluster.restart(options.name, options.component)
        case "kill":
            cluster.kill(options.name, options.component, _signal(options.signal))
        case "push-image":
            print(images.push(cluster.running(layout), options.image, options.target))
    return 0


def _signal(name: str) -> signal.Signals:
    try:
        return signal.Signals["SIG" + name.upper().removeprefix("SIG")]
    except KeyError as error:
        raise ClusterError(f"there is no signal {name!r}: use one such as KILL or TERM") from error


def _status(state: State) -> int:
    kind = "full, in its own network namespace" if state.full else "control plane on loopback"
    print(f"cluster {state.name} ({kind}), {state.url('apiserver')}")
    report = cluster.health(state)
    for name, trouble in report.items():
        process = state.processes.get(name)
        pid = str(process.pid) if process is not None and alive(process) else "-"
        print(f"  {name:<20} {pid:>8}  {trouble or 'healthy'}")
    return 0 if all(trouble is None for trouble in report.values()) else 1


def _environment(state: State, *, as_json: bool) -> None:
    path = os.environ.get("PATH", "/usr/bin:/bin")
    if str(binaries()) not in path.split(":"):
        path = f"{binaries()}:{path}"
    values = {"KUBECONFIG": str(state.layout.kubeconfig), "PATH": path}
    if "versitygw" in state.components:
        values |= {
            "S3_ENDPOINT": state.url("s3", "http"),
            "AWS_ACCESS_KEY_ID": state.s3_access_key,
            "AWS_SECRET_ACCESS_KEY": state.s3_secret_key,
        }
    if state.full:
        values["REGISTRY"] = state.registry
        # Where pods reach a server that a test runs on the machine itself.
        values["HOST_ADDRESS"] = state.host_address
    if as_json:
        print(json.dumps(values, indent=1))
        return
    for name, value in values.items():
        print(f"export {name}={shlex.quote(value)}")
