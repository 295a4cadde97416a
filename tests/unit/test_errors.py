"""The tree of errors in the docstring of `auditstream_schemas.errors` is the tree of the classes."""

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator

from auditstream_schemas import errors
from auditstream_schemas.errors import AuditstreamError
from tests.unit.test_faces import PACKAGES

# Exceptions that never leave their module as errors: a finding that is collected, and answers of the stand-ins.
NO_ERRORS = {"Fault", "MalformedSchemaError", "RefusalError", "ClickHouseError"}


def exceptions() -> Iterator[type[BaseException]]:
    """Every exception class of ours that is not private to its module."""
    for package in PACKAGES:
        for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
            if module.name.endswith("__main__"):
                continue
            members = inspect.getmembers(importlib.import_module(module.name), inspect.isclass)
            yield from (
                member
                for _, member in members
                if issubclass(member, BaseException)
                and member.__module__ == module.name
                and not member.__name__.startswith("_")
            )


def drawn() -> dict[str, tuple[str, str]]:
    """The errors of the drawing, each with its parent and, where it stands elsewhere, its module."""
    tree: dict[str, tuple[str, str]] = {}
    parents = ["AuditstreamError"]
    for indent, name, text in re.findall(r"^    ([│ ]*)[├└]── (\w+) +(.*)$", errors.__doc__ or "", re.MULTILINE):
        depth = len(indent) // 4
        parents[depth + 1 :] = [name]
        module = re.match(r"(auditstream_[\w.]+): ", text)
        tree[name] = (parents[depth], module[1] if module else errors.__name__)
    return tree


def test_every_error_is_drawn_in_the_tree_with_its_parent_and_module() -> None:
    classes = {
        error.__name__: (error.__mro__[1].__name__, error.__module__)
        for error in exceptions()
        if issubclass(error, AuditstreamError) and error is not AuditstreamError
    }
    assert drawn() == classes


def test_every_exception_of_ours_is_an_auditstream_error() -> None:
    others = {error.__name__ for error in exceptions() if not issubclass(error, AuditstreamError)}
    assert others <= NO_ERRORS
