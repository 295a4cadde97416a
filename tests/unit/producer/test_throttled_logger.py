import logging

import pytest

from auditstream_producer.delivery import ThrottledLogger


def test_one_line_of_a_kind_per_interval(caplog: pytest.LogCaptureFixture) -> None:
    now = 1000.0
    throttled = ThrottledLogger(logging.getLogger("auditstream.test"), interval=30, clock=lambda: now)
    for now in (1000.0, 1000.1, 1029.9, 1030.0, 1031.0):
        throttled.log(logging.WARNING, "kafka", f"away at {now}")
    throttled.log(logging.ERROR, "other", "another kind")
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "away at 1000.0"),
        ("WARNING", "away at 1030.0 (2 more since the last such line)"),
        ("ERROR", "another kind"),
    ]
