"""The FineTuneJobs of each namespace as the last full list saw them, for cleaning up after those that ended.

A list of some minutes ago does no harm: prepare leaves everything alone that is newer than the list.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from finetune_api.cleanup import MAXIMUM_JOBS, Neighbours, short
from finetune_operator.clock import format_time, parse_time

# A failed job may be reopened where it stopped for this long; later, reopening it trains from the beginning.
_FAILED_FOR = timedelta(days=7)


@dataclass(frozen=True)
class FullList:
    """All FineTuneJobs that the operator serves."""

    cluster_id: str
    # Before the list began.
    listed_at: datetime
    # Short uids by namespace.
    kept: dict[str, list[str]] = field(default_factory=dict)
    failed: dict[str, list[str]] = field(default_factory=dict)

    def add(self, job: dict[str, Any]) -> None:
        """Take in a listed FineTuneJob."""
        group = self.failed if _failed_long_ago(job, self.listed_at) else self.kept
        group.setdefault(job["metadata"]["namespace"], []).append(short(job["metadata"]["uid"]))

    def of(self, namespace: str) -> Neighbours | None:
        """Return the jobs of a namespace; None if there are too many to pass on."""
        kept, failed = self.kept.get(namespace, []), self.failed.get(namespace, [])
        if len(kept) + len(failed) > MAXIMUM_JOBS:
            return None
        return Neighbours(
            cluster_id=self.cluster_id, listed_at=format_time(self.listed_at), kept=sorted(kept), failed=sorted(failed)
        )


def _failed_long_ago(job: dict[str, Any], now: datetime) -> bool:
    status = job.get("status") or {}
    conditions: Sequence[dict[str, Any]] = status.get("conditions") or []
    failed = any(c["type"] == "Failed" and c["status"] == "True" for c in conditions)
    ended = status.get("completionTime")
    return failed and ended is not None and parse_time(ended) < now - _FAILED_FOR
