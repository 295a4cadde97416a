"""Writes the generated pages of the docs; with ``--check`` writes nothing and fails if a page differs.

The environment is cleared of AUDITSTREAM_* first: a help text shows the values that the environment sets.
"""

import os
import sys

from tests.docs.pages import ROOT, pages


def main() -> int:
    """Write or check every page; return the exit code."""
    for name in [name for name in os.environ if name.startswith("AUDITSTREAM_")]:
        del os.environ[name]
    check = "--check" in sys.argv[1:]
    stale = []
    for relative, text in pages().items():
        path = ROOT / relative
        if path.is_file() and path.read_text("utf-8") == text:
            continue
        stale.append(relative)
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    for relative in stale:
        print(f"{relative}: {'differs from the code; run `make docs`' if check else 'written'}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
