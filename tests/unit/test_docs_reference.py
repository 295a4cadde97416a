"""The generated pages of the docs are what the code gives."""

import subprocess
import sys
from pathlib import Path

from auditstream_sink.metrics import METRICS
from auditstream_sink.statements import FAULTS
from tests.docs.reasons import REASONS

ROOT = Path(__file__).parents[2]


def test_the_reference_pages_are_those_that_the_code_gives() -> None:
    # A process of its own: help texts show the environment, which other tests may have set.
    done = subprocess.run(
        [sys.executable, "-m", "tests.docs", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_dead_letter_reason_has_a_cause_and_a_remedy() -> None:
    [metric] = [metric for metric in METRICS if metric.label == "reason"]
    assert set(REASONS) == set(metric.values)
    for name, reason in REASONS.items():
        assert reason.remedy
        assert bool(reason.cause) != (name in FAULTS)
