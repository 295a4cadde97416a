"""Rules of the whole repository that no linter knows: one name, one meaning; one place that connects."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PRODUCT = ("schemas", "producers", "consumers", "infra")
VAGUE = {"utils.py", "util.py", "helpers.py", "helper.py", "common.py", "misc.py", "manager.py"}


def modules(*folders: str) -> Iterator[Path]:
    for folder in folders:
        yield from sorted((ROOT / folder).rglob("*.py"))


def test_a_class_name_has_one_meaning() -> None:
    places: defaultdict[str, list[str]] = defaultdict(list)
    for path in modules(*PRODUCT, "tests"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(str(path.relative_to(ROOT)))
    assert {name: paths for name, paths in places.items() if len(paths) > 1} == {}


def test_one_place_connects_to_clickhouse() -> None:
    calls = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in modules(*PRODUCT)
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("get_client")
    ]
    assert len(calls) == 1, calls


@pytest.mark.parametrize("folder", PRODUCT)
def test_a_module_is_named_for_its_content_and_has_at_most_400_lines(folder: str) -> None:
    for path in modules(folder):
        assert path.name not in VAGUE
        assert len(path.read_text("utf-8").splitlines()) <= 400, path


SIBLINGS = {
    "auditstream_producer",
    "auditstream_storage",
    "auditstream_sink",
    "auditstream_export",
    "auditstream_admin",
    "auditstream_local",
}
PURE_DATA = {"auditstream_storage.grants"}
"""May be imported without its package's face, which would import a ClickHouse client into the local stack."""
PUBLIC_MODULES = {"auditstream_producer.ndjson", "auditstream_producer.testing"}
"""For `auditstream emit` and for the tests of services. The face would import them into every service."""


def test_a_sibling_is_imported_through_its_face() -> None:
    """From another package, import from a package or one of its rooms, never from a module within."""
    inside = []
    for path in modules(*PRODUCT):
        package = path.relative_to(ROOT).parts[1]
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.ImportFrom) or node.module is None:
                continue
            root = node.module.partition(".")[0]
            if root == package or root not in SIBLINGS or node.module in PURE_DATA | PUBLIC_MODULES:
                continue
            folder = path.relative_to(ROOT)
            face = ROOT / _folder_of(root) / "/".join(node.module.split("."))
            if not face.is_dir():
                inside.append(f"{folder}:{node.lineno} {node.module}")
    assert inside == []


def _folder_of(package: str) -> str:
    return next(folder for folder in PRODUCT if (ROOT / folder / package).is_dir())
