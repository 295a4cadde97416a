"""The pages about consumers name every parameter and resource that there is."""

import re
from pathlib import Path

from auditstream_admin.app import create_app
from auditstream_admin.events.event_filter import KEYS
from auditstream_admin.events.statements import POLICY_SETTING
from auditstream_admin.events.time_range import PRESETS
from auditstream_admin.settings import AdminSettings
from auditstream_schemas.event import FIELDS

DOCS = Path(__file__).parents[2] / "consumers" / "docs"


def _page(name: str) -> str:
    return (DOCS / name).read_text("utf-8")


def test_the_api_page_explains_every_parameter_and_preset() -> None:
    explained = set(re.findall(r"`(\w+)`", _page("api.md")))
    assert explained >= KEYS
    assert set(PRESETS) <= explained


def test_the_api_page_lists_every_resource() -> None:
    named = set(re.findall(r"`[A-Z]+ (/api/v1/[\w{}/]+)`", _page("api.md")))
    assert named == set(create_app(AdminSettings(), print).routes.openapi()["paths"])
    assert POLICY_SETTING in _page("admin-deploy.md")


def test_the_export_page_explains_every_column() -> None:
    table = _page("export.md").partition("The CSV columns")[2].partition("## ")[0]
    names = [name for row in re.findall(r"^\| ([a-z_, ]+) \|", table, re.MULTILINE) for name in row.split(", ")]
    assert names == list(FIELDS)


def test_every_setting_that_a_page_names_is_in_the_reference() -> None:
    reference = _page("reference/settings.md")
    for page in DOCS.glob("*.md"):
        for name in set(re.findall(r"AUDITSTREAM_[A-Z_]*[A-Z]", page.read_text("utf-8"))):
            assert name in reference or name in {"AUDITSTREAM_CATALOG_MODE", "AUDITSTREAM_CLICKHOUSE_TCP"}, (page, name)
