"""Every example runs, and so does the code in the pages for service developers."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.producer.topic import WAIT, read_events, run_python
from tests.support.fix_stack import Tenant

PRODUCERS = Path(__file__).parents[3] / "producers"
EXAMPLES = PRODUCERS / "examples"


def code_blocks(page: str, language: str) -> list[str]:
    text = (PRODUCERS / page).read_text("utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def test_every_example_has_a_test() -> None:
    tested = {"plain_script.py", "cron_job.py", "web_service.py", "test_web_service.py"}
    assert {path.name for path in EXAMPLES.glob("*.py")} == tested


def test_the_plain_script_emits_an_event(tenant: Tenant) -> None:
    output = run_python(tenant, str(EXAMPLES / "plain_script.py"))
    (event,) = read_events(tenant, 1)
    assert output == f"emitted {event.id}\n"
    assert event.actor.name == "Ada"


def test_a_second_run_of_the_cron_job_makes_second_deliveries(tenant: Tenant) -> None:
    for _ in range(2):
        run_python(tenant, str(EXAMPLES / "cron_job.py"))
    events = read_events(tenant, 4)
    assert len(events) == 4
    assert len(set(events)) == len({event.id for event in events}) == 2


def test_the_web_service_delivers_its_events_when_it_stops(tenant: Tenant, tmp_path: Path) -> None:
    script = """
from fastapi.testclient import TestClient
from examples.web_service import create_app
with TestClient(create_app()) as client:
    assert client.post("/contexts/deploy", headers={"user": "u-17"}).status_code == 201
"""
    run_python(tenant, "-c", script, cwd=tmp_path)
    (event,) = read_events(tenant, 1)
    assert (event.action, event.actor.id) == ("context.create", "u-17")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("source", ["examples/test_web_service.py", "docs/testing.md"])
def test_the_tests_of_services_pass(source: str, tmp_path: Path) -> None:
    path = PRODUCERS / source
    if path.suffix == ".md":
        path = tmp_path / "test_page.py"
        path.write_text("\n\n".join(code_blocks(source, "python")), "utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-c", os.devnull, "--rootdir", str(path.parent), str(path)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=3 * WAIT,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_the_quickstart_works_as_written(tenant: Tenant, tmp_path: Path) -> None:
    """The stack of the test run replaces the one that `make up` starts."""
    (script,) = code_blocks("docs/quickstart.md", "python")
    (tmp_path / "hello_audit.py").write_text(script, "utf-8")
    commands = [block for block in code_blocks("docs/quickstart.md", "sh") if not block.startswith("make ")]
    # As `make up` does: the user that may do everything, because `auditstream migrate` makes the database.
    administrator = {"AUDITSTREAM_CLICKHOUSE_USER": "default", "AUDITSTREAM_CLICKHOUSE_PASSWORD": ""}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-eu", "-c", "\n".join(commands)],
        env={**os.environ, **tenant.env, **administrator, "PATH": path},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=4 * WAIT,  # five processes, one after the other
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "user.logged_in" in done.stdout
    (event,) = read_events(tenant, 1)
    assert event.actor.name == "Ada"


@pytest.mark.parametrize("page", ["docs/promises.md", "docs/other-languages.md"])
def test_the_code_of_a_page_emits_an_event(page: str, tenant: Tenant, tmp_path: Path) -> None:
    run_python(tenant, "-c", "\n".join(code_blocks(page, "python")), cwd=tmp_path)
    (event,) = read_events(tenant, 1)
    assert event.action == "context.create"
