"""Creates the parts of the operator and runs them until SIGTERM."""

import asyncio
import contextlib
import logging
import math
import signal
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import TypeVar

from aiohttp import web

from finetune_operator import __version__, logs
from finetune_operator.cluster.client import FINETUNE_JOBS, NAMESPACES, KubeClient, Object, load_configuration
from finetune_operator.cluster.errors import ApiError, KubeError, LeadershipLost
from finetune_operator.control import gc_tuning
from finetune_operator.control.event_filter import EventFilter, waits_for_ttl
from finetune_operator.control.leadership import Leadership
from finetune_operator.control.lease import LEASE_SECONDS
from finetune_operator.control.reconciler import Key, Reconciler
from finetune_operator.control.watches import Watches
from finetune_operator.control.workqueue import WorkQueue, backoff_seconds
from finetune_operator.decide.conditions import is_finished
from finetune_operator.job_defaults import Settings
from finetune_operator.neighbours import FullList
from finetune_operator.options import Options, parse
from finetune_operator.progress.auth import Authenticator
from finetune_operator.progress.server import ProgressEndpoint
from finetune_operator.progress.store import Entry, ProgressStore
from finetune_operator.progress.writer import ProgressWriter, stored
from finetune_operator.serving.certificate import Certificate
from finetune_operator.serving.health import STUCK_SECONDS, Health
from finetune_operator.serving.metrics import Metrics

_log = logging.getLogger(__name__)

Result = TypeVar("Result")

# The leader may have renewed the certificate, so each replica reads the Secret this often.
_CERTIFICATE_SECONDS = 300.0
# The leader of a new installation stores the first certificate within a moment.
_FIRST_CERTIFICATE_SECONDS = 1.0
_PROGRESS_WRITERS = 4
_SHUTDOWN_SECONDS = 8.0


async def retry(what: str, attempt: Callable[[], Awaitable[Result]], at_most: float = math.inf) -> Result:
    """Call `attempt` until it succeeds, with a backoff of up to a minute, or `at_most` seconds."""
    failures = 0
    while True:
        try:
            return await attempt()
        except KubeError as error:
            failures += 1
            _log.warning("cannot %s yet: %s", what, error)
            await asyncio.sleep(min(backoff_seconds(failures), at_most))


@contextlib.asynccontextmanager
async def serving(application: web.Application, port: int, context: ssl.SSLContext | None) -> AsyncIterator[None]:
    """Serve on all addresses; `context` None means plain HTTP."""
    runner = web.AppRunner(application, access_log=None, handle_signals=False, shutdown_timeout=2.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, None, port, ssl_context=context).start()
        yield
    finally:
        await runner.cleanup()


class Operator:
    """One replica. It always serves progress and metrics, and reconciles while it leads."""

    def __init__(self, options: Options, client: KubeClient) -> None:
        self._options = options
        self._client = client
        self._ready = False
        self._cluster_id: str | None = None
        self._neighbours: FullList | None = None
        self._leadership = Leadership(client, options.pod_namespace, options.lease_name, options.pod_name)
        leader = client.permitted(self._leadership.check)
        self._certificate = Certificate(
            client,
            leader,
            lambda: self._leadership.leads,
            options.pod_namespace,
            options.tls_secret_name,
            options.service_host,
        )
        self._metrics = Metrics()
        self._store = ProgressStore()
        self._jobs: WorkQueue[Key] = WorkQueue(
            Reconciler(leader, self._settings, self._metrics, ended=self._ended, creates=self._creates),
            workers=options.workers,
        )
        self._progress: WorkQueue[Key] = WorkQueue(ProgressWriter(client, self._store), workers=_PROGRESS_WRITERS)
        self._endpoint = ProgressEndpoint(Authenticator(client), self._store, self._metrics, self._accepted)
        self._event_filter = EventFilter(self._due, self._rests, self._reported)
        self._watches = Watches(options.watch_namespaces, self._event_filter)
        self._metrics.watch(
            leads=lambda: self._leadership.leads,
            queue_depth=lambda: len(self._jobs),
            watch_age=lambda: time.monotonic() - self._watches.last_event,
        )

    async def run(self) -> None:
        """Run until cancelled.

        Raises:
            ExceptionGroup: with a LeadershipLost, if this replica was the leader and is no longer.
        """
        health = Health(self._metrics, self._problems, lambda: self._ready and self._watches.started)
        async with serving(health.application(), self._options.http_port, None), asyncio.TaskGroup() as group:
            group.create_task(self._leadership.run())
            try:
                await self._work()
            finally:
                # All changes that it makes as the leader have ended.
                await self._leadership.release()
                await self._watches.stop()

    async def _work(self) -> None:
        await retry("read the TLS Secret", self._certificate.refresh, at_most=_FIRST_CERTIFICATE_SECONDS)
        async with serving(self._endpoint.application(), self._options.progress_port, self._certificate.context):
            await retry("list FineTuneJobs", self._full_list)
            self._watches.start()
            self._ready = True
            _log.info("ready")
            async with asyncio.TaskGroup() as group:
                group.create_task(self._progress.run())
                group.create_task(self._list_again())
                group.create_task(self._refresh_certificate())
                group.create_task(self._lead())

    async def _lead(self) -> None:
        await self._leadership.won()
        # Pods get the stored certificate authority, which may be newer than the one that this replica read last.
        await retry("read the TLS Secret", self._certificate.refresh)
        # A standby enqueues nothing, so this list makes everything due; later events enqueue as usual.
        await retry("list FineTuneJobs", self._full_list)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._jobs.run())
            # The previous leader may have sent a status late, and a change of the status causes no pass: list again.
            await asyncio.sleep(LEASE_SECONDS)
            await retry("list FineTuneJobs", self._full_list)

    def _due(self, key: Key, seconds: float) -> None:
        if self._leadership.leads:
            self._jobs.add(key, seconds)

    def _rests(self, key: Key, phase: str) -> None:
        if self._leadership.leads:
            self._metrics.phase(key, phase)
            self._ended(key)

    def _reported(self, key: Key, job: Object) -> None:
        report = stored(job)
        if report and self._leadership.leads:
            self._metrics.progress(key, report)

    def _settings(self) -> Settings:
        return Settings(
            trainer_image=self._options.trainer_image,
            operator_version=__version__,
            progress_url_base=self._options.progress_base_url,
            ca_pem=self._certificate.ca_pem,
            image_pull_policy=self._options.trainer_image_pull_policy,
            defaults=self._options.defaults,
            full_list=self._neighbours,
        )

    def _problems(self) -> list[str]:
        problems = []
        if max(self._jobs.longest_active_seconds(), self._progress.longest_active_seconds()) > STUCK_SECONDS:
            problems.append(f"a pass has been running for more than {STUCK_SECONDS:.0f} seconds")
        if self._ready and not self._watches.alive:
            problems.append("the watches have ended")
        return problems

    def _ended(self, key: Key) -> None:
        self._endpoint.forget(key)
        self._metrics.drop_live(key)

    def _creates(self, key: Key, name: str) -> None:
        self._event_filter.expect(key, name)

    def _accepted(self, key: Key, entry: Entry) -> None:
        self._progress.add(key, entry.due_in(time.monotonic()))

    async def _identify_cluster(self) -> None:
        """Learn the uid by which jobs tell their cluster's folders in a bucket from those of others.

        A right that is missing may come later, so each full list tries again.
        """
        if self._cluster_id:
            return
        try:
            found = await self._client.get(NAMESPACES, None, "kube-system")
        except ApiError as error:
            if error.status not in (403, 404):
                raise
            _log.debug("nothing is cleaned up in the buckets, because the cluster's id cannot be read: %s", error)
        else:
            self._cluster_id = found["metadata"]["uid"]

    async def _full_list(self) -> None:
        """Make every FineTuneJob due that is not at rest, if this replica leads, in case a watch missed an event."""
        await self._identify_cluster()
        known = self._metrics.known()
        found: set[Key] = set()
        unfinished: list[Key] = []
        neighbours = FullList(self._cluster_id, datetime.now(UTC)) if self._cluster_id else None
        with self._event_filter.full_list() as listed:
            for namespace in self._options.watch_namespaces or (None,):
                async for job in self._client.each(FINETUNE_JOBS, namespace):
                    key = job["metadata"]["namespace"], job["metadata"]["name"]
                    found.add(key)
                    if neighbours:
                        neighbours.add(job)
                    if not is_finished(job):
                        unfinished.append(key)
                    # For a finished job with a TTL, the first pass requests the next one.
                    if key not in known or not waits_for_ttl(job):
                        listed(key, job)
        self._neighbours = neighbours
        # On a standby no pass reports that a job is finished.
        self._endpoint.retain(unfinished)
        for key in known - found:
            self._event_filter.of_job(key, None)
        self._metrics.last_full_list.set_to_current_time()
        # The objects of the list are garbage now; what the watches keep is long-lived.
        gc_tuning.settle()

    async def _list_again(self) -> None:
        while True:
            await asyncio.sleep(self._options.resync_seconds)
            await retry("list FineTuneJobs", self._full_list)

    async def _refresh_certificate(self) -> None:
        while True:
            await asyncio.sleep(_CERTIFICATE_SECONDS)
            # Jobs get a new authority with their next pass, at the latest after the next full list.
            await retry("read the TLS Secret", self._certificate.refresh)


async def _operate(options: Options) -> None:
    client = KubeClient(await load_configuration())
    try:
        await Operator(options, client).run()
    finally:
        await client.close()


def _first(error: BaseException) -> BaseException:
    return _first(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error


async def run(options: Options) -> int:
    """Run until SIGTERM or SIGINT; return the exit code, which is 1 if this replica led and lost the Lease."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    operator, stopped = asyncio.create_task(_operate(options)), asyncio.create_task(stop.wait())
    await asyncio.wait({operator, stopped}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if operator.done():
        error = operator.exception()
        if isinstance(error, ExceptionGroup) and error.subgroup(LeadershipLost):
            _log.error("exiting, to restart as a standby: %s", _first(error))
        else:
            _log.error("exiting after an unexpected error", exc_info=error)
        return 1
    _log.info("stopping")
    operator.cancel()
    await asyncio.wait({operator}, timeout=_SHUTDOWN_SECONDS)
    return 0


def main(arguments: Sequence[str]) -> int:
    """Parse the command line and run."""
    options = parse(arguments)
    logs.configure(options.log_level)
    return asyncio.run(run(options))
