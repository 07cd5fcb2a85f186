import json
import logging

from finetune_operator.logs import JsonFormatter


def _line(record: logging.LogRecord) -> dict[str, object]:
    line: dict[str, object] = json.loads(JsonFormatter().format(record))
    return line


def test_a_log_line_names_its_job() -> None:
    record = logging.makeLogRecord({"msg": "created %s", "args": ("x",), "levelname": "INFO", "key": ("team", "coach")})
    line = _line(record)
    assert (line["namespace"], line["name"], line["message"]) == ("team", "coach", "created x")


def test_an_exception_stays_on_its_line() -> None:
    try:
        raise ValueError("boom")
    except ValueError as error:
        record = logging.makeLogRecord({"msg": "m", "exc_info": (ValueError, error, error.__traceback__)})
    assert "ValueError: boom" in str(_line(record)["exception"])
