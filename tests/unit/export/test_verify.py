import gzip
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from auditstream_export.formats import OutputFormat
from auditstream_export.query.statements import header
from auditstream_export.verify import SigningKey, compare, load_signing_key, make_key
from auditstream_ops.commands.export import export
from auditstream_schemas.errors import ExportError, SettingsError
from tests.support.export_files import csv_row, write_export

ROWS = [csv_row(number) for number in range(50)]


@pytest.fixture
def key(tmp_path: Path) -> SigningKey:
    make_key(tmp_path / "key.pem")
    return load_signing_key(tmp_path / "key.pem")


@pytest.fixture
def exported(tmp_path: Path, key: SigningKey) -> Path:
    path = tmp_path / "all.csv"
    write_export(path, [ROWS[:30], ROWS[30:]], key=key)
    return path


def _verify(*arguments: object) -> tuple[int, Any]:
    ended = CliRunner().invoke(export, ["verify", "--json", *map(str, arguments)])
    if isinstance(ended.exception, ExportError):
        return 1, str(ended.exception)
    return ended.exit_code, json.loads(ended.stdout)


def _public(path: Path) -> list[object]:
    return ["--public-key", path.with_name("key.pem.pub")]


def _differences(report: Any) -> list[tuple[str, int | None, int | None]]:
    differences = report["exports"][0]["files"][0]["differences"]
    return [(item["kind"], item["first_row"], item["last_row"]) for item in differences]


def test_a_sound_export_is_verified_by_its_key(exported: Path) -> None:
    for arguments in ([exported], [f"{exported}.manifest.json"]):
        code, report = _verify(*_public(exported), *arguments)
        assert (code, report["verified"], report["exports"][0]["signature"]["state"]) == (0, True, "trusted")


def test_a_key_id_is_enough(exported: Path, key: SigningKey) -> None:
    assert _verify("--key-id", key.public.key_id, exported)[0] == 0
    assert _verify("--key-id", "0" * 64, exported)[0] == 4


@pytest.mark.parametrize(
    ("spoil", "differences"),
    [
        (lambda rows: [*rows[:6], rows[6].replace(b"b", b"c"), *rows[7:]], [("content", None, None), ("row", 7, 7)]),
        (lambda rows: [*rows[:6], b"", *rows[7:]], [("content", None, None), ("rows", None, None), ("row", 7, 7)]),
        (lambda rows: rows[:-1], [("content", None, None), ("rows", None, None)]),
        (lambda rows: [*rows[:-1], rows[-1][:-9]], [("content", None, None), ("rows", None, None)]),
        (lambda rows: [rows[1], rows[0], *rows[2:]], [("content", None, None), ("row", 1, 1), ("row", 2, 2)]),
    ],
)  # fmt: skip
def test_the_row_that_differs_is_named(
    exported: Path, spoil: Callable[[list[bytes]], list[bytes]], differences: list[tuple[str, int | None, int | None]]
) -> None:
    exported.write_bytes(header(OutputFormat()) + b"".join(spoil(ROWS)))
    code, report = _verify(*_public(exported), exported)
    assert code == 3
    assert not report["verified"]
    assert _differences(report)[: len(differences)] == differences


def test_a_run_of_rows_is_named_in_a_large_file(tmp_path: Path) -> None:
    rows = [csv_row(number) for number in range(25_000)]
    path = tmp_path / "large.csv.gz"
    write_export(path, [rows])
    rows[12_345] = csv_row(12_345, success="false")
    path.write_bytes(gzip.compress(header(OutputFormat()) + b"".join(rows), 1))
    code, report = _verify("--allow-unsigned", path)
    assert (code, _differences(report)[1:]) == (3, [("row", 12_346, 12_348)])


def test_a_comparison_with_another_copy_names_the_cell(exported: Path) -> None:
    good = exported.with_name("good.csv.gz")
    good.write_bytes(gzip.compress(exported.read_bytes()))
    exported.write_bytes(
        header(OutputFormat()) + b"".join([*ROWS[:6], csv_row(6, success="false", version="2"), *ROWS[7:]])
    )
    code, report = _verify(*_public(exported), "--against", good, exported)
    assert code == 3
    columns = {"version": ["2", "1"], "success": ["false", "true"]}
    identity = "00000000-0000-4000-8000-000000000006"
    assert report["rows"] == [{"row": 7, "kind": "changed", "id": identity, "columns": columns}]


def test_copies_are_aligned_after_missing_rows(tmp_path: Path) -> None:
    one, other = tmp_path / "one.csv", tmp_path / "other.csv"
    changed = csv_row(40, action="x.y")
    one.write_bytes(header(OutputFormat()) + b"".join([*ROWS[:10], *ROWS[12:40], changed, *ROWS[41:], csv_row(99)]))
    other.write_bytes(header(OutputFormat()) + b"".join(ROWS))
    report = [(row.row, row.kind, (row.id or "")[-2:]) for row in compare(one, other, OutputFormat())]
    assert report == [(11, "missing", "10"), (11, "missing", "11"), (39, "changed", "40"), (49, "extra", "99")]
    assert list(compare(other, other, OutputFormat())) == []


@pytest.mark.parametrize(
    ("spoil", "state"),
    [
        (lambda manifest, _sig: manifest.write_bytes(manifest.read_bytes().replace(b'"ann"', b'"bob"')), "invalid"),
        (lambda _manifest, sig: sig.write_bytes(bytes(64)), "invalid"),
        (lambda _manifest, sig: sig.unlink(), "invalid"),
        (
            lambda manifest, sig: (
                sig.unlink(),
                manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"signed_by": None})),
            ),
            "unsigned",
        ),
    ],
)
def test_a_changed_manifest_is_refused(exported: Path, spoil: Callable[[Path, Path], object], state: str) -> None:
    spoil(exported.with_name("all.csv.manifest.json"), exported.with_name("all.csv.manifest.json.sig"))
    code, report = _verify(*_public(exported), exported)
    assert (code, report["exports"][0]["signature"]["state"]) == (4, state)
    assert _verify("--allow-unsigned", exported)[0] == (0 if state == "unsigned" else 4)


def test_a_manifest_signed_by_another_key_is_refused(exported: Path, tmp_path: Path) -> None:
    make_key(tmp_path / "other.pem")
    code, report = _verify("--public-key", tmp_path / "other.pem.pub", exported)
    assert (code, report["exports"][0]["signature"]["state"]) == (4, "untrusted")
    assert _verify(exported)[0] == 4


def test_a_malformed_manifest_is_an_error(exported: Path) -> None:
    manifest = exported.with_name("all.csv.manifest.json")
    text = manifest.read_text("utf-8")
    for old, new, message in (
        ('"rows": 50,\n "truncated"', '"rows": 51,\n "truncated"', "not all of the export"),
        ('"truncated": false', '"truncated": true', "not all of the export"),
        ('"name": "all.csv"', '"name": "../all.csv"', "malformed"),
        ('"name": "all.csv"', '"name": ""', "malformed"),
        ('"rows_per_checksum": 1', '"rows_per_checksum": 0', "malformed"),
        ('"rows_per_checksum": 1', '"rows_per_checksum": 2', "rows lack checksums"),
        ('"manifest_version": 1', '"manifest_version": 2', "not a manifest of version 1"),
        ("{", "[", "is not a manifest"),
    ):
        assert old in text
        manifest.write_text(text.replace(old, new, 1), "utf-8")
        code, report = _verify("--allow-unsigned", exported)
        assert (code, message in report) == (1, True), report
    manifest.unlink()
    assert _verify(exported)[0] == 1


def test_a_missing_file_differs(exported: Path) -> None:
    exported.unlink()
    code, report = _verify(*_public(exported), f"{exported}.manifest.json")
    assert (code, _differences(report)) == (3, [("missing", None, None)])


def test_one_file_of_a_split_export_is_verified(tmp_path: Path) -> None:
    write_export(tmp_path / "all.csv.zst", [ROWS], output_format=OutputFormat(split_rows=20))
    names = [f"all-{number:05d}.csv.zst" for number in (1, 2, 3)]
    assert sorted(path.name for path in tmp_path.iterdir()) == [*names, "all.csv.zst.manifest.json"]
    code, report = _verify("--allow-unsigned", tmp_path / names[1])
    assert (code, report["exports"][0]["files_in_all"], report["exports"][0]["files"][0]["rows"]) == (0, 3, 20)
    shutil.copy(tmp_path / names[0], tmp_path / names[1])
    code, report = _verify("--allow-unsigned", tmp_path / "all.csv.zst.manifest.json")
    assert [file["sound"] for file in report["exports"][0]["files"]] == [True, False, True]


def test_openssl_checks_the_signature_and_prints_the_key_id(exported: Path, key: SigningKey) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("there is no openssl here")
    manifest = exported.with_name("all.csv.manifest.json")
    public = exported.with_name("key.pem.pub")
    check: list[str | Path] = [openssl, "pkeyutl", "-verify", "-pubin", "-inkey", public, "-rawin", "-in", manifest]
    check += ["-sigfile", f"{manifest}.sig"]
    assert subprocess.run(check, check=False, capture_output=True).returncode == 0
    manifest.write_bytes(manifest.read_bytes() + b" ")
    assert subprocess.run(check, check=False, capture_output=True).returncode != 0
    der = subprocess.run([openssl, "pkey", "-pubin", "-in", public, "-outform", "DER"], check=True, capture_output=True)
    digest = subprocess.run([openssl, "sha256"], input=der.stdout, check=True, capture_output=True)
    assert key.public.key_id in digest.stdout.decode()


def test_a_private_key_is_readable_by_its_owner_only_and_never_overwritten(tmp_path: Path) -> None:
    make_key(tmp_path / "key.pem")
    assert (tmp_path / "key.pem").stat().st_mode & 0o777 == 0o600
    before = (tmp_path / "key.pem").read_bytes()
    with pytest.raises(ExportError, match="never overwritten"):
        make_key(tmp_path / "key.pem")
    assert (tmp_path / "key.pem").read_bytes() == before
    for bad in (tmp_path / "none.pem", tmp_path / "key.pem.pub", tmp_path):
        with pytest.raises(SettingsError, match="AUDITSTREAM_EXPORT_KEY_FILE"):
            load_signing_key(bad)
