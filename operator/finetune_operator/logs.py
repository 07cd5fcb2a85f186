"""Logs as one JSON object per line on stdout. Nothing secret is ever passed to a logger."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any


class JsonFormatter(logging.Formatter):
    """Formats a record; `extra={"key": (namespace, name)}` and kopf's own records name their object."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without a line end."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        key = getattr(record, "key", None)
        reference = getattr(record, "k8s_ref", None)
        if key is not None:
            line["namespace"], line["name"] = key
        elif isinstance(reference, dict):
            line["namespace"], line["name"] = reference.get("namespace"), reference.get("name")
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def configure(level: str) -> None:
    """Send every logger of the process, kopf's too, through the formatter."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # It logs for each watch event that the handler succeeded.
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)
    # kopf runs outside the main thread on purpose, and warns that it cannot handle signals there.
    logging.getLogger("kopf._core.reactor.running").setLevel(logging.ERROR)
