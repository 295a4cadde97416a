import dataclasses
import re
from pathlib import Path

from auditstream_admin.app import create_app
from auditstream_admin.events.event_filter import KEYS
from auditstream_admin.events.statements import POLICY_SETTING
from auditstream_admin.events.time_range import PRESETS
from auditstream_admin.settings import AdminSettings
from auditstream_schemas.catalog import catalog

README = (Path(__file__).parents[3] / "consumers" / "README.md").read_text("utf-8").partition("## The page")[2]


def test_the_readme_lists_every_setting_of_the_page_with_its_default_and_help() -> None:
    rows = re.findall(r"^\| `(AUDITSTREAM_\w+)` \| (.*?) \| (.*?) \|$", README, re.MULTILINE)
    expected = [
        (
            f"AUDITSTREAM_{field.name.upper()}",
            f"`{field.default}`" if str(field.default) else "",
            field.metadata["typed-settings"]["help"],
        )
        for field in dataclasses.fields(AdminSettings)
        if field.name in AdminSettings.__annotations__
    ]
    assert [tuple(cell.strip() for cell in row) for row in rows] == expected
    assert set(re.findall(r"AUDITSTREAM_ADMIN_\w+", README)) <= {name for name, _, _ in expected}


def test_the_readme_explains_every_parameter_and_preset() -> None:
    explained = set(re.findall(r"`(\w+)`", README))
    assert explained >= KEYS
    assert set(PRESETS) <= explained


def test_the_readme_lists_every_resource_of_the_api() -> None:
    paths = set(create_app(AdminSettings(), print).routes.openapi()["paths"])
    named = {"/api/v1/exports/{id}", "/api/v1/exports/{id}/file"}
    named |= set(re.findall(r"(/api/v1/[\w{}/]+)`", README)) - {"/api/v1/openapi"}
    assert paths == named
    assert POLICY_SETTING in README


def test_what_the_page_emits_is_in_the_catalog() -> None:
    source = "".join(
        path.read_text("utf-8")
        for folder in ("consumers/auditstream_admin", "infra/auditstream_ops")
        for path in (Path(__file__).parents[3] / folder).rglob("*.py")
    )
    emitted = set(re.findall(r'"(audit_log\.[a-z.]+)"', source))
    assert len(emitted) >= 6
    assert emitted <= {action for action in catalog() if action.startswith("audit_log.")}
