"""An install without extras, as a service has it: the SDK works, and a message names the extra for all else."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.events import make_event
from tests.support.fix_stack import Tenant
from tests.support.pipeline import count, run_sink

ROOT = Path(__file__).parents[3]

EMIT = """
import sys
from auditstream_producer import AuditProducer
from auditstream_schemas.event import AuditEvent

with AuditProducer.from_env() as producer:
    for line in sys.stdin:
        producer.emit_event(AuditEvent.from_json(line))
"""


def _install(directory: Path, project: str) -> Path:
    subprocess.run([sys.executable, "-m", "venv", directory], check=True)
    python = directory / "bin" / "python"
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", project]
    subprocess.run(pip, check=True, timeout=240)
    return python.parent


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The executables of `pip install .` in a virtual environment of its own."""
    return _install(tmp_path_factory.mktemp("bare") / "venv", str(ROOT))


@pytest.fixture(scope="module")
def console(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `auditstream` command of `pip install '.[console]'` in a virtual environment of its own."""
    return _install(tmp_path_factory.mktemp("console") / "venv", f"{ROOT}[console]") / "auditstream"


def _run(*command: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60, **options)


def test_the_sdk_emits_without_the_console(bare: Path, tenant: Tenant) -> None:
    events = "".join(make_event(number).to_json() + "\n" for number in range(25))
    environment = {**os.environ, **tenant.env, "AUDITSTREAM_CATALOG_MODE": "off"}
    result = _run(bare / "python", "-c", EMIT, env=environment, input=events)
    assert result.returncode == 0, result.stderr
    assert run_sink(tenant).stored == count(tenant) == 25


@pytest.mark.parametrize(
    "command", [["auditstream"], ["auditstream", "emit", "-"], ["python", "-m", "auditstream_ops"]]
)
def test_without_the_console_one_sentence_names_the_extra(bare: Path, command: list[str]) -> None:
    result = _run(bare / command[0], *command[1:])
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "pip install '.[console]'" in result.stderr


def test_the_console_emits(console: Path, tenant: Tenant, tmp_path: Path) -> None:
    events = tmp_path / "events.ndjson"
    events.write_text(make_event(1).to_json() + "\n", "utf-8")
    environment = {**os.environ, **tenant.env, "AUDITSTREAM_CATALOG_MODE": "off"}
    result = _run(console, "emit", events, env=environment)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "accepted 1, refused 0, delivered 1, undelivered 0\n"


@pytest.mark.parametrize(
    ("command", "extra"),
    [
        ("sink", "sink"),
        ("migrate", "sink"),
        ("grants", "sink"),
        ("export", "export"),
        ("sql", "export"),
        ("up", "local"),
        ("demo", "all"),
    ],
)
def test_the_console_names_a_missing_extra(console: Path, command: str, extra: str, tmp_path: Path) -> None:
    result = _run(console, command, cwd=tmp_path)
    assert result.returncode == 1
    assert f"pip install '.[{extra}]'" in result.stderr


def test_the_help_of_the_console_lists_every_command(console: Path) -> None:
    result = _run(console, "--help")
    for command in ("emit", "sink", "export", "up", "migrate", "dlq"):
        assert f"\n  {command} " in result.stdout


def test_the_console_prints_its_version(console: Path) -> None:
    assert _run(console, "--version").stdout.startswith("auditstream, version ")
