"""Logs name the trace that they belong to."""

import json
import logging

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import format_trace_id

from windfall.servicekit.errors import Mistake
from windfall.servicekit.logs import JsonLine, TextLine, to_stderr


def record(message: str, error: BaseException | None = None) -> logging.LogRecord:
    raised = (type(error), error, error.__traceback__) if error else None
    return logging.LogRecord("windfall.test", logging.WARNING, __file__, 1, message, (), raised)


def test_a_line_within_a_span_ends_with_its_trace() -> None:
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("test")
    assert "trace=" not in TextLine("profiler").format(record("quiet"))
    with tracer.start_as_current_span("round") as span:
        line = TextLine("profiler").format(record("slow"))
    assert line.endswith(f"profiler slow trace={format_trace_id(span.get_span_context().trace_id)}")


def test_a_line_of_json_has_opentelemetrys_names() -> None:
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("test")
    try:
        raise ValueError("broken")
    except ValueError as error:
        with tracer.start_as_current_span("round") as span:
            line = json.loads(JsonLine("profiler").format(record("slow\nvery", error)))
    assert line["trace_id"] == format_trace_id(span.get_span_context().trace_id)
    assert (line["severity"], line["service"], line["message"]) == ("WARNING", "profiler", "slow\nvery")
    assert "ValueError: broken" in line["stack"]


@pytest.mark.parametrize("wrong", [{"WINDFALL_LOG_LEVEL": "LOUD"}, {"WINDFALL_LOG_FORMAT": "xml"}])
def test_a_wrong_setting_is_one_line(wrong: dict[str, str]) -> None:
    with pytest.raises(Mistake, match=next(iter(wrong))):
        to_stderr("profiler", wrong)
