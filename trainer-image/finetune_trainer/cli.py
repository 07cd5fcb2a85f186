"""The command line: every way in, and every way a stage can end."""

import argparse
import importlib
import logging
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TextIO, cast

from finetune_api.exit_codes import ExitCode, reason
from finetune_api.layout import JobLayout
from finetune_api.plan import PLAN_PATH, Plan
from finetune_api.result import StageResult
from finetune_api.spec import STAGES, Stage
from finetune_trainer.commands import check
from finetune_trainer.errors import StageError
from finetune_trainer.progress import push as progress_push
from finetune_trainer.progress.reporter import ProgressReporter
from finetune_trainer.run_folder import stage_results
from finetune_trainer.runtime import endpoint_policy, environment, plan_file
from finetune_trainer.runtime.context import Context
from finetune_trainer.runtime.node import ALONE, PORT, Node, address
from finetune_trainer.runtime.sigterm import StopFlag, StopRequested, ignored
from finetune_trainer.runtime.stage_log import LOG_NAME, configure_logging, copied_to
from finetune_trainer.storage.open import open_output, override_output
from finetune_trainer.storage.store import Store

log = logging.getLogger(__name__)

CRASHED = 1
INTERRUPTED = 130
# Kubernetes sets it in each pod of an Indexed Job.
_INDEX = "JOB_COMPLETION_INDEX"
_HELP = {
    "prepare": "check access, model and data, and make the rows that train reads (no GPU)",
    "train": "train the adapter and evaluate it",
    "export": "convert the result to what inference servers read (no GPU)",
}


_PLAN_HELP = "Renders the plan that the three stages read, with local files in place of what only a cluster has."


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    top = argparse.ArgumentParser(
        prog="python -m finetune_trainer",
        description="Fine-tunes one model as a plan says: prepare, then train, then export.",
        epilog="Without Kubernetes: render a plan with `plan`, then run the three stages with --plan plan.json.",
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="{prepare,train,export,plan}")
    for stage in STAGES:
        command = commands.add_parser(stage, help=_HELP[stage], description=_HELP[stage])
        command.add_argument("--plan", type=Path, default=Path(PLAN_PATH), metavar="FILE", help="default: %(default)s")
        command.add_argument("--plan-sha256", metavar="HEX", help="refuse a plan with another checksum")
        command.add_argument("--attempt", type=int, default=0, metavar="N", help="names the log (default: 0)")
        command.add_argument("--output", metavar="URI", help="file:///FOLDER or s3://..., instead of the plan's output")
        command.add_argument("--report", action="store_true", help="run nothing: tell again what the stage left")
        if stage == "train":
            _add_team_options(command)
        if stage == "prepare":
            check.add_options(command)
    command = commands.add_parser("plan", help="render a plan from a FineTuneJob file", description=_PLAN_HELP)
    command.add_argument("--job", type=Path, required=True, metavar="FILE", help="a FineTuneJob in YAML")
    command.add_argument("--model", type=Path, metavar="DIR", help="a model folder instead of spec.model")
    command.add_argument(
        "--dataset", type=Path, action="append", default=[], metavar="FILE", help="instead of a source; repeatable"
    )
    command.add_argument(
        "--adapter", type=Path, metavar="DIR", help="an adapter to go on from, instead of model.adapter"
    )
    command.add_argument("--output", type=Path, metavar="DIR", help="a folder instead of spec.output")
    command.add_argument("--allow-cpu", action="store_true", help="train without a GPU")
    return top


def main(argv: Sequence[str]) -> int:
    """Run one command and return its exit code."""
    arguments = parser().parse_args(argv)
    if arguments.command == "train":
        _check_team_options(arguments)
    if arguments.command == "plan":
        return _print_plan(arguments)
    if arguments.command == "prepare" and arguments.check:
        return _check(arguments)
    with environment.scratch_folder(arguments.command) as scratch, environment.applied(scratch):
        log_file = scratch / LOG_NAME
        attempt = _Attempt(arguments, scratch, log_file)
        if arguments.report:
            configure_logging()
            return attempt.report()
        with copied_to(log_file) as terminal:
            configure_logging()
            result = attempt.run(terminal)
        # Only now has everything that was printed reached the log file.
        with ignored():
            return attempt.finish(result)


def _add_team_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--processes", type=_positive, default=1, metavar="N", help="of this pod, one per GPU (default: 1)"
    )
    command.add_argument(
        "--nodes", type=_positive, default=1, metavar="N", help="pods that train together (default: 1)"
    )
    command.add_argument(
        "--leader", type=address, metavar="HOST[:PORT]", help=f"where the first pod listens (port: {PORT})"
    )
    command.add_argument(
        "--node", type=int, metavar="I", help=f"which of the pods this one is, from 0 (default: ${_INDEX})"
    )


def _check_team_options(arguments: argparse.Namespace) -> None:
    """End with a usage error if the pods cannot find each other."""
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
        ValueError: the index is no number.
    """
    if arguments.command != "train" or arguments.nodes == 1:
        return ALONE
    host, port = arguments.leader or (ALONE.host, PORT)
    index = arguments.node if arguments.node is not None else int(os.environ.get(_INDEX, "-1"))
    return Node(index, arguments.nodes, host, port)


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


class _Attempt:
    """One attempt of one stage, from the plan to the result."""

    def __init__(self, arguments: argparse.Namespace, scratch: Path, log_file: Path) -> None:
        self._arguments = arguments
        self._stage = cast(Stage, arguments.command)
        self._scratch = scratch
        self._log_file = log_file
        self._stop = StopFlag()
        self._node = _node(arguments)
        # Known as soon as the plan is read; until then nothing can be uploaded.
        self._store: Store | None = None
        self._layout: JobLayout | None = None
        self._run_id: str | None = None

    def run(self, terminal: TextIO | None) -> StageResult:
        """Run the stage; every way in which it can end becomes a result."""
        started = time.monotonic()
        with self._stop.installed():
            result = self._guarded(lambda: self._run_stage(terminal))
        if result.exit_code == ExitCode.OK:
            timings = result.timings | {"total": round(time.monotonic() - started, 1)}
            result = result.model_copy(update={"timings": timings})
        self._run_id = result.run_id or self._run_id
        result = result.model_copy(update={"run_id": self._run_id, "log": self._log_key})
        if result.exit_code == CRASHED and result.log:
            result = result.model_copy(update={"message": f"{result.message}; the log is at {result.log}"})
        _tell(result)
        return result

    def finish(self, result: StageResult) -> int:
        """Upload the log, keep the result for the next stage and tell the kubelet; return the exit code."""
        if not self._upload_log(result.log):
            result = result.model_copy(update={"log": None})
        if result.exit_code == ExitCode.OK and self._node.leads:
            kept = self._guarded(lambda: self._keep(result))
            if kept.exit_code != ExitCode.OK:
                result = kept.model_copy(update={"run_id": result.run_id, "log": result.log})
                _tell(result)
        stage_results.write_termination_message(result)
        return result.exit_code

    def report(self) -> int:
        """Tell the kubelet once more how a finished stage ended; nothing is run and nothing written to the output."""
        with self._stop.installed():
            result = self._guarded(self._kept)
        if self._log_file.exists():
            # It is not uploaded, so the traceback of a crash has nowhere else to go.
            sys.stderr.write(self._log_file.read_text(encoding="utf-8"))
        _tell(result)
        stage_results.write_termination_message(result)
        return result.exit_code

    def _kept(self) -> StageResult:
        _, layout, store = self._opened()
        return stage_results.kept(store, layout, self._stage)

    def _opened(self) -> tuple[Plan, JobLayout, Store]:
        plan = plan_file.load(self._arguments.plan, self._arguments.plan_sha256)
        if self._arguments.output:
            plan = plan.model_copy(update={"output": override_output(plan.output, self._arguments.output)})
        endpoint_policy.check(plan)
        return plan, JobLayout(plan.job.namespace, plan.job.name, plan.job.uid), open_output(plan.output)

    def _run_stage(self, terminal: TextIO | None) -> StageResult:
        plan, layout, store = self._opened()
        if not plan.allow_cpu:
            environment.forbid_cpu_training()
        self._store, self._layout = store, layout
        if self._stage != "prepare" and (earlier := stage_results.find(store, layout, "prepare")):
            self._run_id = earlier.run_id
            if earlier.reused_from:
                log.info("an identical run is complete: %s", earlier.reused_from)
                return StageResult(
                    stage=self._stage, exit_code=ExitCode.OK, run_id=earlier.run_id, reused_from=earlier.reused_from
                )
        return self._run_module(plan, layout, store, terminal)

    def _run_module(self, plan: Plan, layout: JobLayout, store: Store, terminal: TextIO | None) -> StageResult:
        endpoint = progress_push.endpoint_from_environment() if self._node.leads else None
        push = progress_push.ProgressPush(lambda p: progress_push.post(endpoint, p)) if endpoint else None
        reporter = ProgressReporter(self._stage, self._arguments.attempt, terminal, push.offer if push else None)
        context = Context(plan, layout, store, reporter, self._scratch, self._arguments.attempt, self._stop)
        if self._stage == "train":
            context = replace(context, processes=self._arguments.processes, node=self._node)
        try:
            reporter.report("Starting")
            run: Callable[[Context], StageResult] = importlib.import_module(f"finetune_trainer.{self._stage}").run
            return run(context)
        finally:
            if push:
                push.close()

    def _keep(self, result: StageResult) -> StageResult:
        assert self._store is not None
        assert self._layout is not None
        stage_results.write(self._store, self._layout, result)
        return result

    def _guarded(self, action: Callable[[], StageResult]) -> StageResult:
        try:
            return action()
        except StageError as error:
            return self._failure(error.exit_code, error.message, error.checkpoint_step)
        except StopRequested:
            return self._failure(ExitCode.PREEMPTED, f"{self._stage} was told to stop; it starts again by itself")
        except KeyboardInterrupt:
            return self._failure(INTERRUPTED, f"{self._stage} was interrupted")
        except Exception as error:  # noqa: BLE001 - the last resort
            # Into the log only: a user can do nothing with a traceback.
            with self._log_file.open("a", encoding="utf-8") as file:
                traceback.print_exc(file=file)
            return self._failure(CRASHED, f"unexpected {type(error).__name__} in {self._stage}")

    def _failure(self, code: int, message: str, checkpoint_step: int | None = None) -> StageResult:
        return StageResult(
            stage=self._stage,
            exit_code=code,
            reason=reason(code),
            message=message[:4096],
            checkpoint_step=checkpoint_step,
        )

    @property
    def _log_key(self) -> str | None:
        if self._layout is None:
            return None
        return self._layout.log(self._run_id, self._stage, self._arguments.attempt, self._node.index)

    def _upload_log(self, key: str | None) -> bool:
        if self._store is None or key is None:
            return False
        try:
            self._store.put_file(key, self._log_file)
        except StageError as error:
            sys.stderr.write(f"the log was not uploaded: {error.message}\n")
            return False
        return True


def _tell(result: StageResult) -> None:
    if result.exit_code != ExitCode.OK:
        sys.stderr.write(f"{result.stage} failed ({result.reason}): {result.message}\n")
