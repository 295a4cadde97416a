import logging

import pytest

from auditstream_producer.notices import ThrottledLogger


def test_a_lasting_state_is_said_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    now = 1000.0
    notices = ThrottledLogger(logging.getLogger("auditstream.test"), interval=30, clock=lambda: now)
    for now in (1000.0, 1000.1, 1029.9, 1030.0, 1031.0):
        notices.say(logging.WARNING, "kafka", f"away at {now}")
    notices.say(logging.ERROR, "other", "another kind")
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "away at 1000.0"),
        ("WARNING", "away at 1030.0 (2 more since the last such line)"),
        ("ERROR", "another kind"),
    ]
