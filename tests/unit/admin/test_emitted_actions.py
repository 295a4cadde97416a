import re
from pathlib import Path

from auditstream_schemas.catalog import catalog

ROOT = Path(__file__).parents[3]


def test_the_catalog_lists_every_action_that_the_page_emits() -> None:
    sources = [
        path.read_text("utf-8")
        for folder in ("consumers/auditstream_admin", "infra/auditstream_ops")
        for path in (ROOT / folder).rglob("*.py")
    ]
    emitted = set(re.findall(r'"(audit_log\.[a-z.]+)"', "".join(sources)))
    assert len(emitted) >= 6
    assert emitted <= {action for action in catalog() if action.startswith("audit_log.")}
