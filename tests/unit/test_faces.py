import ast
import importlib
import inspect
import pkgutil
from pathlib import Path
from types import ModuleType

import pytest

PACKAGES = [
    "auditstream_schemas",
    "auditstream_producer",
    "auditstream_storage",
    "auditstream_sink",
    "auditstream_export",
    "auditstream_admin",
    "auditstream_ops",
    "auditstream_local",
]


def packages() -> list[str]:
    """The packages and the packages within them."""
    found = []
    for name in PACKAGES:
        modules = pkgutil.walk_packages(importlib.import_module(name).__path__, f"{name}.")
        found += [name, *(module.name for module in modules if module.ispkg)]
    return found


@pytest.fixture(params=packages())
def package(request: pytest.FixtureRequest) -> ModuleType:
    package = importlib.import_module(request.param)
    if package.__file__ is None:
        pytest.skip(f"{package.__name__} exports nothing: it has no __init__.py")
    return package


def source(package: ModuleType) -> ast.Module:
    assert package.__file__ is not None
    return ast.parse(Path(package.__file__).read_text("utf-8"))


def imported(package: ModuleType) -> dict[str, str]:
    """Names that a package's __init__.py imports, each with the module it comes from."""
    return {
        alias.asname or alias.name: node.module or ""
        for node in source(package).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def test_init_is_imports_and_all_and_nothing_else(package: ModuleType) -> None:
    for node in source(package).body:
        if isinstance(node, ast.Expr):
            assert isinstance(node.value, ast.Constant), "an __init__.py runs nothing"
        elif isinstance(node, ast.Assign):
            assert [ast.unparse(target) for target in node.targets] == ["__all__"]
        else:
            assert isinstance(node, ast.ImportFrom), ast.unparse(node)


def test_all_is_what_is_imported_in_order(package: ModuleType) -> None:
    exported = list(getattr(package, "__all__", []))
    assert exported == sorted(imported(package), key=_order)


def test_exports_come_from_the_package_where_they_are_public(package: ModuleType) -> None:
    for name, origin in imported(package).items():
        assert origin.startswith(f"{package.__name__}."), f"{name} is another package's to export"
        module = importlib.import_module(origin)
        assert not name.startswith("_")
        assert getattr(package, name) is getattr(module, name)
        defined_in = getattr(inspect.unwrap(getattr(module, name)), "__module__", origin)
        if defined_in.startswith("auditstream_"):
            assert defined_in == origin, f"import {name} from {defined_in}, where it is defined"


def _order(name: str) -> tuple[int, str]:
    """Constants, then classes, then functions: the order that ruff keeps."""
    kind = 0 if name.isupper() else 1 if name[0].isupper() else 2
    return kind, name
