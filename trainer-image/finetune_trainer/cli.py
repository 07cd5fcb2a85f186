"""The command line."""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from finetune_api.exit_codes import ExitCode
from finetune_api.plan import PLAN_PATH
from finetune_api.spec import STAGES
from finetune_trainer.attempt import Attempt, Request
from finetune_trainer.commands import check
from finetune_trainer.errors import INTERRUPTED, StageError
from finetune_trainer.runtime import environment
from finetune_trainer.runtime.node import ALONE, PORT, Node, address
from finetune_trainer.runtime.sigterm import ignored
from finetune_trainer.runtime.stage_log import LOG_NAME, configure_logging, copied_to

log = logging.getLogger(__name__)

# Kubernetes sets it in each pod of an Indexed Job.
_INDEX = "JOB_COMPLETION_INDEX"
_HELP = {
    "prepare": "check access, model and data, and make the rows that train reads (no GPU)",
    "train": "train the adapter and evaluate it",
    "export": "convert the result to what inference servers read (no GPU)",
}


_PLAN_HELP = "Renders the plan that the three stages read, with local files instead of what only a cluster has."


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    top = argparse.ArgumentParser(
        prog="python -m finetune_trainer",
        description="Fine-tunes one model according to a plan: prepare, then train, then export.",
        epilog="Without Kubernetes: render a plan with `plan`, then run the three stages with --plan plan.json.",
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="{prepare,train,export,plan}")
    for stage in STAGES:
        command = commands.add_parser(stage, help=_HELP[stage], description=_HELP[stage])
        command.add_argument("--plan", type=Path, default=Path(PLAN_PATH), metavar="FILE", help="default: %(default)s")
        command.add_argument("--plan-sha256", metavar="HEX", help="refuse a plan with another checksum")
        command.add_argument("--attempt", type=int, default=0, metavar="N", help="names the log (default: 0)")
        command.add_argument("--output", metavar="URI", help="file:///FOLDER or s3://..., instead of the plan's output")
        command.add_argument(
            "--report", action="store_true", help="do not run the stage: report its stored result again"
        )
        if stage == "train":
            _add_process_options(command)
        if stage == "prepare":
            check.add_options(command)
    command = commands.add_parser("plan", help="render a plan from a FineTuneJob file", description=_PLAN_HELP)
    command.add_argument("--job", type=Path, required=True, metavar="FILE", help="a FineTuneJob in YAML")
    command.add_argument("--model", type=Path, metavar="DIR", help="a model folder instead of spec.model")
    command.add_argument(
        "--dataset", type=Path, action="append", default=[], metavar="FILE", help="instead of a source; repeatable"
    )
    command.add_argument(
        "--adapter", type=Path, metavar="DIR", help="an adapter to continue training, instead of model.adapter"
    )
    command.add_argument("--output", type=Path, metavar="DIR", help="a folder instead of spec.output")
    command.add_argument("--allow-cpu", action="store_true", help="train without a GPU")
    return top


def main(argv: Sequence[str]) -> int:
    """Run one command and return its exit code."""
    arguments = parser().parse_args(argv)
    if arguments.command == "train":
        _check_process_options(arguments)
    if arguments.command == "plan":
        return _print_plan(arguments)
    if arguments.command == "prepare" and arguments.check:
        return _check(arguments)
    with environment.scratch_folder(arguments.command) as scratch, environment.applied(scratch):
        log_file = scratch / LOG_NAME
        attempt = Attempt(_request(arguments), scratch, log_file)
        if arguments.report:
            configure_logging()
            return attempt.report()
        with copied_to(log_file) as terminal:
            configure_logging()
            result = attempt.run(terminal)
        # The log file is complete only now.
        with ignored():
            return attempt.finish(result)


def _add_process_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--processes", type=_positive, default=1, metavar="N", help="processes in this pod, one per GPU (default: 1)"
    )
    command.add_argument(
        "--nodes", type=_positive, default=1, metavar="N", help="pods that train together (default: 1)"
    )
    command.add_argument(
        "--leader", type=address, metavar="HOST[:PORT]", help=f"where the first pod listens (port: {PORT})"
    )
    command.add_argument("--node", type=int, metavar="I", help=f"index of this pod, from 0 (default: ${_INDEX})")


def _check_process_options(arguments: argparse.Namespace) -> None:
    """Exit with a usage error if the pods could not find each other."""
    if arguments.nodes == 1:
        return
    try:
        index = _node(arguments).index
    except ValueError:
        index = -1
    if arguments.leader is None:
        parser().error("--nodes needs --leader")
    if not 0 <= index < arguments.nodes:
        parser().error(f"--nodes needs --node, or {_INDEX}: a number from 0 to {arguments.nodes - 1}")


def _node(arguments: argparse.Namespace) -> Node:
    """Return which pod this one is.

    Raises:
        ValueError: the index is not a number.
    """
    if arguments.command != "train" or arguments.nodes == 1:
        return ALONE
    host, port = arguments.leader or (ALONE.host, PORT)
    index = arguments.node if arguments.node is not None else int(os.environ.get(_INDEX, "-1"))
    return Node(index, arguments.nodes, host, port)


def _request(arguments: argparse.Namespace) -> Request:
    return Request(
        stage=arguments.command,
        plan=arguments.plan,
        plan_sha256=arguments.plan_sha256,
        output=arguments.output,
        attempt=arguments.attempt,
        processes=arguments.processes if arguments.command == "train" else 1,
        node=_node(arguments),
    )


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def _print_plan(arguments: argparse.Namespace) -> int:
    from finetune_trainer.commands.plan import local_plan

    try:
        plan = local_plan(
            arguments.job,
            model=arguments.model,
            datasets=arguments.dataset,
            adapter=arguments.adapter,
            output=arguments.output,
            allow_cpu=arguments.allow_cpu,
        )
    except StageError as error:
        sys.stderr.write(f"{error.message}\n")
        return error.exit_code
    sys.stdout.write(plan.to_bytes().decode() + "\n")
    return ExitCode.OK


def _check(arguments: argparse.Namespace) -> int:
    with environment.scratch_folder("check") as scratch, environment.applied(scratch):
        try:
            return check.run(check.Request.of(arguments), scratch)
        except StageError as error:
            sys.stderr.write(f"{error.message}\n")
            return error.exit_code
        except KeyboardInterrupt:
            return INTERRUPTED
