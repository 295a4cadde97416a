"""``python -m auditstream_ops``: the ``auditstream`` command."""

from auditstream_ops.cli import main

main()
