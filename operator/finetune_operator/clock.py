"""Timestamps as Kubernetes writes them."""

from datetime import datetime


def format_time(moment: datetime) -> str:
    """Return RFC 3339 in UTC with whole seconds, as metav1.Time. `moment` is aware, in UTC."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_time(text: str) -> datetime:
    """Return an aware time from metav1.Time or metav1.MicroTime."""
    return datetime.fromisoformat(text)
