"""Plain HTTP for Prometheus and the kubelet's probes."""

from collections.abc import Callable

from aiohttp import web

from finetune_operator.serving.metrics import Metrics

# No handler call takes this long: each of its requests ends within half a minute.
STUCK_SECONDS = 300.0


class Health:
    """The answers to probes. `problems` returns one sentence for each problem that only a restart can solve."""

    def __init__(self, metrics: Metrics, problems: Callable[[], list[str]], is_ready: Callable[[], bool]) -> None:
        self._metrics = metrics
        self._problems = problems
        self._is_ready = is_ready

    def application(self) -> web.Application:
        """Return the web application. Any answer proves that the event loop runs."""
        application = web.Application()
        application.router.add_get("/metrics", self._show_metrics)
        application.router.add_get("/healthz", self._healthz)
        application.router.add_get("/readyz", self._readyz)
        return application

    async def _show_metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=self._metrics.render(), headers={"Content-Type": "text/plain; version=0.0.4"})

    async def _healthz(self, _: web.Request) -> web.Response:
        problems = self._problems()
        return web.Response(status=500 if problems else 200, text="\n".join(problems or ["ok"]) + "\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        if self._is_ready():
            return web.Response(text="ok\n")
        return web.Response(status=503, text="the first full list is not done, or the watches have not started\n")
