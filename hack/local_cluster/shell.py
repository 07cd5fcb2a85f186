"""Running a helper program to its end."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

from .layout import ClusterError


def run(
    command: list[str],
    *,
    check: bool = True,
    timeout_seconds: float = 120,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> str:
    """The program's standard output.

    Raises ClusterError with its error output if it fails (unless ``check`` is off), is
    missing, or takes longer than ``timeout_seconds``.
    """
    try:
        result = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_seconds,
            cwd=cwd,
            env=environment,
            check=False,
        )
    except FileNotFoundError as error:
        raise ClusterError(f"{command[0]} is not installed: run hack/prerequisites") from error
    except subprocess.TimeoutExpired as error:
        raise ClusterError(f"{' '.join(command)} took over {timeout_seconds:.0f} s") from error
    if check and result.returncode != 0:
        detail = result.stderr.strip() or result.stdout.strip()
        raise ClusterError(f"{' '.join(command)} failed ({result.returncode}): {detail}")
    return result.stdout
