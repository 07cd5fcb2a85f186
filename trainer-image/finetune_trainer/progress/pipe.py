"""Progress from the training process to the stage's own, which shows it and sends it to the operator."""

import contextlib
import json
import logging
import os
from typing import Any, TextIO

from finetune_api.progress import Activity
from finetune_trainer.runtime.context import Reporter

log = logging.getLogger(__name__)


class PipeReporter:
    """See `context.Reporter`: writes one line of JSON per report to an inherited file descriptor."""

    def __init__(self, descriptor: int) -> None:
        # Programs that training starts would hold the pipe open.
        os.set_inheritable(descriptor, False)
        self._pipe = os.fdopen(descriptor, "w", buffering=1, encoding="utf-8")

    def report(self, activity: Activity, **figures: Any) -> None:
        """Pass it on. Never raises."""
        known = {name: figure for name, figure in figures.items() if figure is not None}
        with contextlib.suppress(OSError, ValueError):
            self._pipe.write(json.dumps({"activity": activity} | known) + "\n")


def forward(pipe: TextIO, reporter: Reporter) -> None:
    """Report every line until the other end is closed."""
    with pipe:
        for line in pipe:
            try:
                reporter.report(**json.loads(line))
            except (ValueError, TypeError):
                # The last line of a process that was killed.
                log.debug("a line of progress was incomplete")
