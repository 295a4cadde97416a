import xml.etree.ElementTree as ET

import pytest
from click.testing import CliRunner

from auditstream_ops.cli import cli
from auditstream_storage.grants import ROLES, SCOPE_ANALYST, RoleGrants, role_named, to_sql, to_users_xml, user_sql

DATABASES = ("audit", "t00")


@pytest.fixture(scope="module")
def users() -> ET.Element:
    element = ET.fromstring(to_users_xml(DATABASES, "se<cret", scope="a'b")).find("users")  # noqa: S314 - our own text
    assert element is not None
    return element


def granted(users: ET.Element, name: str) -> list[str]:
    return [str(query.text) for query in users.findall(f"{name}/grants/query")]


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_both_forms_have_the_same_rights(users: ET.Element, role: RoleGrants) -> None:
    sql = [
        statement.removesuffix(f" TO {role.role}")
        for database in DATABASES
        for statement in to_sql(database, [role])
        if statement.startswith("GRANT")
    ]
    assert granted(users, role.user) == list(dict.fromkeys(sql))


def test_the_default_user_is_let_in_from_loopback_only(users: ET.Element) -> None:
    assert [ip.text for ip in users.findall("default/networks/ip")] == ["127.0.0.1", "::1"]
    assert users.findtext("default/password") == ""
    assert users.findall("default/grants") == []


def test_the_example_with_a_row_policy_is_an_analyst(users: ET.Element) -> None:
    assert granted(users, SCOPE_ANALYST) == granted(users, "auditstream_analyst")
    assert users.findtext(f"{SCOPE_ANALYST}/databases/t00/events/filter") == r"scope_id = 'a\'b'"
    assert users.findtext(f"{SCOPE_ANALYST}/profile") == "reads_only"


def test_no_text_of_a_password_is_in_the_file() -> None:
    assert "se<cret" not in to_users_xml(DATABASES, "se<cret", scope="s")
    assert user_sql(role_named("sink"), "it's") == (
        r"CREATE USER IF NOT EXISTS auditstream_sink IDENTIFIED BY 'it\'s' DEFAULT ROLE auditstream_sink_role"
    )


def test_the_command_prints_one_role_or_all() -> None:
    everything = CliRunner().invoke(cli, ["grants", "--database", "logs"], catch_exceptions=False).stdout
    assert all(f"{statement};" in everything for statement in to_sql("logs"))
    one = CliRunner().invoke(cli, ["grants", "--role", "analyst"], catch_exceptions=False).stdout
    assert one == (
        "-- analyst: people who query events\n"
        "CREATE ROLE IF NOT EXISTS auditstream_analyst_role SETTINGS readonly = 2;\n"
        "GRANT SELECT ON audit.events TO auditstream_analyst_role;\n"
        "-- CREATE USER IF NOT EXISTS auditstream_analyst IDENTIFIED BY '<password>'"
        " DEFAULT ROLE auditstream_analyst_role;\n\n"
    )


def test_the_command_refuses_a_malformed_database() -> None:
    assert CliRunner().invoke(cli, ["grants", "--database", "a; DROP"]).exit_code != 0
