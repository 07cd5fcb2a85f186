"""Operators broken on purpose, to see the judge find it: started in place of the program, only ever by a test."""

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from finetune_operator import main
from finetune_operator.cluster import apply
from finetune_operator.cluster import client as kube_client
from finetune_operator.control import workqueue
from finetune_operator.decide import failures

VARIABLE = "FINETUNE_FAULTS_BREAK"


def _forgets() -> None:
    """It does not come back to a job whose pass failed: lost, unless another replica takes over."""
    forgotten: set[Any] = set()
    schedule: Any = workqueue.Schedule
    finish, add = schedule.finish, schedule.add

    def forget(self: Any, key: Any, now: float, *, failed: bool, requeue_after: float | None = None) -> None:
        if failed:
            forgotten.add(key)
        finish(self, key, now, failed=failed, requeue_after=requeue_after)

    schedule.finish = forget
    schedule.add = lambda self, key, at: None if key in forgotten else add(self, key, at)


def _doubles() -> None:
    """It creates each Job twice: doubled."""
    module: Any = apply
    create = module._create

    async def twice(client: Any, resource: Any, job: Any, body: Any) -> Any:
        created = await create(client, resource, job, body)
        if resource is kube_client.JOBS:
            metadata = {**body["metadata"], "name": f"{body['metadata']['name']}-again"}
            await create(client, resource, job, {**body, "metadata": metadata})
        return created

    module._create = twice


def _gives_up() -> None:
    """It takes each failure for a final one: wrong."""
    judge: Any = failures.judge
    module: Any = failures
    module.judge = lambda *arguments, **named: replace(judge(*arguments, **named), permanent=True)


BREAKS: dict[str, Callable[[], None]] = {"forgets": _forgets, "doubles": _doubles, "gives-up": _gives_up}

if __name__ == "__main__":
    BREAKS[os.environ[VARIABLE]]()
    sys.exit(main.main(sys.argv[1:]))
