import pytest
from aiohttp.test_utils import TestClient, TestServer

from finetune_operator.serving.health import Health
from finetune_operator.serving.metrics import Metrics


@pytest.mark.parametrize(
    ("problems", "ready", "path", "status"),
    [
        ([], True, "/healthz", 200),
        (["a pass hangs"], True, "/healthz", 500),
        ([], True, "/readyz", 200),
        ([], False, "/readyz", 503),
        ([], False, "/metrics", 200),
    ],
)
async def test_probes_say_what_is_the_matter(problems: list[str], ready: bool, path: str, status: int) -> None:
    health = Health(Metrics(), lambda: problems, lambda: ready)
    async with TestClient(TestServer(health.application())) as client, client.get(path) as response:
        assert response.status == status
