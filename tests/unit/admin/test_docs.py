import re
from pathlib import Path

from auditstream_schemas.catalog import catalog


def test_what_the_page_emits_is_in_the_catalog() -> None:
    source = "".join(
        path.read_text("utf-8")
        for folder in ("consumers/auditstream_admin", "infra/auditstream_ops")
        for path in (Path(__file__).parents[3] / folder).rglob("*.py")
    )
    emitted = set(re.findall(r'"(audit_log\.[a-z.]+)"', source))
    assert len(emitted) >= 6
    assert emitted <= {action for action in catalog() if action.startswith("audit_log.")}
