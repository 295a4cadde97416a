"""How to install an optional part of auditstream. Every message about a missing package uses this."""


def install_hint(extra: str) -> str:
    """A sentence that says how to install an extra.

    It names no public index: the name ``auditstream`` is not registered there, so anybody could publish under it.
    """
    return f"install auditstream with its extra `{extra}`; in a checkout: pip install '.[{extra}]'"
