"""One attempt of one stage: every way in which it can end becomes a result."""

import importlib
import logging
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TextIO

from finetune_api.exit_codes import ExitCode
from finetune_api.layout import JobLayout
from finetune_api.plan import Plan
from finetune_api.result import StageResult
from finetune_api.spec import Stage
from finetune_trainer.errors import CRASHED, INTERRUPTED, Preempted, StageError, unexpected
from finetune_trainer.network import patience
from finetune_trainer.progress import push as progress_push
from finetune_trainer.progress.outage import OutageReporter
from finetune_trainer.progress.reporter import ProgressReporter
from finetune_trainer.run_folder import stage_results
from finetune_trainer.runtime import endpoint_policy, environment, plan_file
from finetune_trainer.runtime.context import Context
from finetune_trainer.runtime.node import Node
from finetune_trainer.runtime.sigterm import StopFlag, StopRequested
from finetune_trainer.storage.open import open_output, override_output
from finetune_trainer.storage.store import Store

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """What the command line asks for."""

    stage: Stage
    plan: Path
    # None: any plan is accepted.
    plan_sha256: str | None
    # A URI that replaces the plan's output.
    output: str | None
    # Names the log, from 0.
    attempt: int
    # GPUs of this pod, and which of the pods it is.
    processes: int
    node: Node


class Attempt:
    """One attempt of one stage, from the plan to the result."""

    def __init__(self, request: Request, scratch: Path, log_file: Path) -> None:
        self._request = request
        self._stage = request.stage
        self._scratch = scratch
        self._log_file = log_file
        self._stop = StopFlag()
        self._node = request.node
        # Known once the plan is read; until then nothing can be uploaded.
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
        _print_failure(result)
        return result

    def finish(self, result: StageResult) -> int:
        """Upload the log, store the result for the next stage, write the termination message; return the exit code."""
        if not self._upload_log(result.log):
            result = result.model_copy(update={"log": None})
        if result.exit_code == ExitCode.OK and self._node.leads:
            kept = self._guarded(lambda: self._keep(result))
            if kept.exit_code != ExitCode.OK:
                result = kept.model_copy(update={"run_id": result.run_id, "log": result.log})
                _print_failure(result)
        stage_results.write_termination_message(result)
        return result.exit_code

    def report(self) -> int:
        """Write the termination message of a finished stage again; nothing runs, and the output is not changed."""
        with self._stop.installed():
            result = self._guarded(self._kept)
        if self._log_file.exists():
            # It is not uploaded, so that the traceback of a crash would be lost.
            sys.stderr.write(self._log_file.read_text(encoding="utf-8"))
        _print_failure(result)
        stage_results.write_termination_message(result)
        return result.exit_code

    def _kept(self) -> StageResult:
        _, layout, store = self._opened()
        return stage_results.kept(store, layout, self._stage)

    def _opened(self) -> tuple[Plan, JobLayout, Store]:
        plan = plan_file.load(self._request.plan, self._request.plan_sha256)
        if self._request.output:
            plan = plan.model_copy(update={"output": override_output(plan.output, self._request.output)})
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
        shown = ProgressReporter(self._stage, self._request.attempt, terminal, push.offer if push else None)
        reporter = OutageReporter(shown, self._stop)
        context = Context(plan, layout, store, reporter, self._scratch, self._request.attempt, self._stop)
        if self._stage == "train":
            context = replace(context, processes=self._request.processes, node=self._node)
        try:
            reporter.report("Starting")
            run: Callable[[Context], StageResult] = importlib.import_module(f"finetune_trainer.{self._stage}.stage").run
            with patience.watched(reporter.watch):
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
            return stage_results.failed(self._stage, error)
        except StopRequested:
            return stage_results.failed(
                self._stage, Preempted(f"{self._stage} was asked to stop; it starts again automatically")
            )
        except KeyboardInterrupt:
            return stage_results.failed(self._stage, StageError(INTERRUPTED, f"{self._stage} was interrupted"))
        except Exception as error:  # noqa: BLE001 - the last resort
            return stage_results.failed(self._stage, unexpected(self._stage, error, self._log_file))

    @property
    def _log_key(self) -> str | None:
        if self._layout is None:
            return None
        return self._layout.log(self._run_id, self._stage, self._request.attempt, self._node.index)

    def _upload_log(self, key: str | None) -> bool:
        if self._store is None or key is None:
            return False
        try:
            # A server that was waited for in vain is not waited for again.
            with patience.brief():
                self._store.put_file(key, self._log_file)
        except StageError as error:
            sys.stderr.write(f"the log was not uploaded: {error.message}\n")
            return False
        return True


def _print_failure(result: StageResult) -> None:
    if result.exit_code != ExitCode.OK:
        sys.stderr.write(f"{result.stage} failed ({result.reason}): {result.message}\n")
