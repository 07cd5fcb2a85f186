"""The operator's replicas, each behind a proxy of its own, started again whenever they end, as a Deployment does it."""

import asyncio
import dataclasses
import json
import random
from dataclasses import dataclass, field
from pathlib import Path

from local_platform.operator_process import Installed, OperatorProcess
from tests.faults.api import Api
from tests.faults.proxy import Proxy

_RESTART_SECONDS = 1.0


@dataclass
class Replica:
    """One operator and its way to the API server."""

    name: str
    process: OperatorProcess
    proxy: Proxy
    # A fault holds it down.
    held: bool = False
    # One fault of the process at a time.
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Operators:
    """All replicas. `endings` are exit statuses of those that ended by themselves."""

    def __init__(self, installed: Installed, api: Api, folder: Path, dice: random.Random, module: str) -> None:
        self._installed = installed
        self._api = api
        self._folder = folder
        self._dice = dice
        self._module = module
        self.replicas: list[Replica] = []
        self.endings: list[int] = []

    async def start(self, count: int) -> None:
        """Start them, and wait for the first to be ready."""
        for number in range(count):
            proxy = Proxy(self._api, self._dice)
            await proxy.start()
            config = json.loads(self._installed.kubeconfig.read_text())
            config["clusters"][0]["cluster"] = {"server": proxy.url}
            name = f"operator-{number}"
            kubeconfig = self._folder / f"{name}.kubeconfig"
            kubeconfig.write_text(json.dumps(config))
            installed = dataclasses.replace(self._installed, kubeconfig=kubeconfig)
            process = OperatorProcess(installed, self._folder / f"{name}.log", name, module=self._module)
            self.replicas.append(Replica(name, process, proxy))
        for replica in self.replicas:
            replica.process.launch()
        await asyncio.to_thread(self.replicas[0].process.wait_until_ready)

    async def supervise(self) -> None:
        """Start again what ends by itself, until cancelled."""
        while True:
            for replica in self.replicas:
                status = replica.process.ended()
                if status is not None and not replica.held:
                    self.endings.append(status)
                    await asyncio.sleep(_RESTART_SECONDS)
                    # A fault that began meanwhile starts it itself, and may have done so.
                    if not replica.held and replica.process.ended() is not None:
                        replica.process.launch()
            await asyncio.sleep(0.2)

    async def kill(self, replica: Replica, seconds: float) -> None:
        """End one by SIGKILL; start it again after some seconds."""
        replica.held = True
        try:
            replica.process.kill()
            await asyncio.sleep(seconds)
            replica.process.launch()
        finally:
            replica.held = False

    async def freeze(self, replica: Replica, seconds: float) -> None:
        """Stop one by SIGSTOP, which later continues as if no time had passed."""
        replica.process.pause()
        await asyncio.sleep(seconds)
        replica.process.resume()

    def logged(self, namespace: str, name: str, most: int = 12) -> list[str]:
        """Return the last that all replicas logged of one FineTuneJob, oldest first."""
        lines = [line for r in self.replicas for line in r.process.log.read_text(errors="replace").splitlines()]
        # Each begins with its time.
        return sorted(line for line in lines if f'"namespace": "{namespace}", "name": "{name}"' in line)[-most:]

    async def stop(self) -> None:
        """End them all."""
        for replica in self.replicas:
            replica.held = True
            if replica.process.runs:
                replica.process.kill()
            await replica.proxy.stop()
