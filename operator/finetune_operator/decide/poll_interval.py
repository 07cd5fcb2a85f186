"""How soon something is looked at again that no watch tells of: why a pod or a queue keeps a job waiting."""

from datetime import timedelta

_FIRST_SECONDS = 5.0
_MOST_SECONDS = 30.0


def look_again_seconds(waited: timedelta) -> float:
    """Return the seconds until the next look at what has waited so long: as long again, from 5 up to 30.

    Whoever waits because the control plane has much to do does not add to that, and a first mistake shows soon.
    """
    return min(max(waited.total_seconds(), _FIRST_SECONDS), _MOST_SECONDS)
