"""The entry point of the ``auditstream`` command, also of ``python -m auditstream_ops``."""

import sys

from auditstream_schemas.extras import install_hint


def main() -> None:
    """Run the command line; without the extra ``console``, print how to install it."""
    try:
        from auditstream_ops.cli import run  # noqa: PLC0415 - click may be missing
    except ModuleNotFoundError as error:
        if error.name != "click":
            raise
        sys.exit(f"auditstream: this install has the SDK, but no command line: {install_hint('console')}")
    run()


if __name__ == "__main__":
    main()
