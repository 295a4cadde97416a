"""An install without extras, as a service has it: it can emit, and names what it lacks for the rest."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.events import make_event
from tests.support.pipeline import count, run_sink
from tests.support.stack import Tenant

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `auditstream` command of `pip install .` in a virtual environment of its own."""
    environment = tmp_path_factory.mktemp("bare") / "venv"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    subprocess.run(
        [environment / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", ROOT],
        check=True,
        timeout=240,
    )
    return environment / "bin" / "auditstream"


def test_it_emits_to_a_broker(bare: Path, tenant: Tenant, tmp_path: Path) -> None:
    events = tmp_path / "events.ndjson"
    events.write_text("".join(make_event(number).to_json() + "\n" for number in range(25)), "utf-8")
    environment = {**os.environ, **tenant.env, "AUDITSTREAM_CATALOG_MODE": "off"}
    found = subprocess.run(
        [bare, "emit", events], check=False, env=environment, capture_output=True, text=True, timeout=60
    )
    assert found.returncode == 0, found.stderr
    assert run_sink(tenant).stored == count(tenant) == 25


@pytest.mark.parametrize(
    ("command", "extra"),
    [("sink", "sink"), ("migrate", "sink"), ("export", "export"), ("sql", "export"), ("up", "local"), ("demo", "all")],
)
def test_a_missing_extra_is_named(bare: Path, command: str, extra: str, tmp_path: Path) -> None:
    found = subprocess.run([bare, command], check=False, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert found.returncode == 1
    assert f'pip install "auditstream[{extra}]"' in found.stderr


def test_its_help_lists_every_command(bare: Path) -> None:
    found = subprocess.run([bare, "--help"], check=True, capture_output=True, text=True, timeout=60)
    for command in ("emit", "sink", "export", "up", "migrate", "dlq"):
        assert f"\n  {command} " in found.stdout


def test_the_sdk_says_which_version_it_is(bare: Path) -> None:
    found = subprocess.run([bare, "--version"], check=True, capture_output=True, text=True, timeout=60)
    assert found.stdout.startswith("auditstream, version ")
