"""How often to poll what no watch reports: why a pod or a queue keeps a job waiting."""

from datetime import timedelta

_MINIMUM_SECONDS = 5.0
_MAXIMUM_SECONDS = 30.0


def poll_interval_seconds(waited: timedelta) -> float:
    """Return the seconds until the next poll of what has waited so long: as long again, from 5 to 30.

    So a mistake shows soon, and a long wait adds little load to a busy control plane.
    """
    return min(max(waited.total_seconds(), _MINIMUM_SECONDS), _MAXIMUM_SECONDS)
