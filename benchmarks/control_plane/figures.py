"""What is reported: one line, and a plot."""

import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Object = dict[str, Any]

_OURS, _PLAIN = "#1f6feb", "#9aa4b2"
_FONT = 'font-family="sans-serif" font-size="12"'


def machine() -> Object:
    """What the figures hold for."""
    information = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in information if line.startswith("model name")]
    model = models[0] if models else platform.machine()
    return {"cpu": model, "cpus": os.cpu_count(), "date": time.strftime("%Y-%m-%d", time.gmtime())}


def percentiles(seconds: Sequence[float]) -> Object:
    """Return p50 and p99 of sorted times: the smallest that so many per cent of them do not exceed."""
    return {f"p{p}": seconds[max(0, -(-len(seconds) * p // 100) - 1)] for p in (50, 99)}


def each(before: Object, after: Object, jobs: int) -> Object:
    """Return what every job added."""
    return {member: (after[member] - before[member]) / jobs for member in before}


def line(found: Object) -> str:
    """Return the last line of the output."""
    pace = found["pace"]["10"]["FineTuneJobs"]
    return (
        f"jobs={found['jobs']} ratio={found['beside']['ratio']:.2f} p50={pace['p50']:.2f} p99={pace['p99']:.2f} "
        f"cpu_ms_per_job={found['alone']['per_job']['cpu_ms']:.0f} rss_mib={found['rss_mib']:.0f}"
    )


def svg(found: Object) -> str:
    """Draw panels of bars: rates and times beside those of plain Jobs, and the cost by what is stored."""
    rates = [
        (f"{name}, {how}", rate, _colour(name))
        for how in ("beside", "alone")
        for name, rate in found[how]["jobs_per_second"].items()
    ]
    times = [
        (f"{name}, {pace}/s, {p}", kind[p], _colour(name))
        for pace, kinds in found["pace"].items()
        for name, kind in kinds.items()
        for p in ("p50", "p99")
    ]
    cost = [(f"{s['stored']:,} stored", s["per_job"]["cpu_ms"], _OURS) for s in found["stored"]]
    memory = [(f"{s['stored']:,} stored", s["rss_mib"], _OURS) for s in found["stored"]]
    memory.append((f"and {found['jobs']} running", found["rss_mib"], _OURS))
    panels = (
        ("Jobs that end each second", rates),
        ("Seconds from apply to the first pod", times),
        ("Operator CPU for one job, ms", cost),
        ("Operator memory, MiB", memory),
    )
    body, top = [], 10
    for title, bars in panels:
        body.append(f'<text x="10" y="{top + 16}" font-weight="bold" {_FONT}>{title}</text>')
        longest = max(value for _, value, _ in bars)
        for number, (label, value, colour) in enumerate(bars):
            y = top + 24 + 20 * number
            width = 360 * value / longest if longest else 0
            body.append(f'<text x="200" y="{y + 12}" text-anchor="end" {_FONT}>{label}</text>')
            body.append(f'<rect x="208" y="{y}" width="{width:.1f}" height="16" fill="{colour}"/>')
            body.append(f'<text x="{212 + width:.1f}" y="{y + 12}" {_FONT}>{value:.3g}</text>')
        top += 24 + 20 * len(bars) + 16
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 {top}" width="640" height="{top}">'
    return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *body, "</svg>", ""])


def _colour(name: str) -> str:
    return _OURS if name == "FineTuneJobs" else _PLAIN
