"""``auditstream export verify`` and ``auditstream export keygen``."""

import itertools
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click

from auditstream_export.verify.comparison import SHOWN, RowDifference, compare
from auditstream_export.verify.manifest import read_manifest, shape_of
from auditstream_export.verify.signing import make_key, parse_public_key
from auditstream_export.verify.verification import CheckedFile, Verification, verify_export
from auditstream_schemas.errors import ExportError

EXIT_DIFFERS = 3
EXIT_NOT_VOUCHED_FOR = 4

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE...")
@click.option("--manifest", type=_FILE, help="The manifest, if it does not lie beside FILE under its own name.")
@click.option("--public-key", "keys", multiple=True, type=_FILE, help="A trusted key (PEM); may be given again.")
@click.option("--key-id", "key_ids", multiple=True, metavar="ID", help="Id of a trusted key; may be given again.")
@click.option("--allow-unsigned", is_flag=True, help="A manifest that nobody trusted has signed is no fault.")
@click.option("--against", type=_FILE, metavar="OTHER", help="Another copy of FILE: tell the cells that differ.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def verify(
    *,
    files: tuple[Path, ...],
    manifest: Path | None,
    keys: tuple[Path, ...],
    key_ids: tuple[str, ...],
    allow_unsigned: bool,
    against: Path | None,
    as_json: bool,
) -> None:
    """Check files of an export against their manifest, and the manifest against its signature.

    FILE is a file of an export, or a manifest, which stands for all its files. Needs no server. A file that differs
    is told with the row; in a large one with the rows among which it is, and with --against to the very cell.

    \b
    Exit codes:
      0  the files are what was exported, and a trusted key says so
      1  cannot be checked: no manifest, for instance
      3  a file differs
      4  the files are those of the manifest, but no trusted key has signed it
    \b
    Examples:
      auditstream export verify --public-key key.pem.pub january.csv.gz
      auditstream export verify --key-id 51e3... january.csv.gz.manifest.json
      auditstream export verify --allow-unsigned --against backup/january.csv january.csv
    """  # noqa: D301 - \b tells click to keep the lines that follow as they are
    if against is not None and (len(files) != 1 or files[0].name.endswith(".manifest.json")):
        raise click.UsageError("--against compares one file with one file")
    trusted = [parse_public_key(_read(path), source=str(path)) for path in keys]
    found = [verify_export(path, manifest=manifest, trusted=trusted, trusted_ids=key_ids) for path in files]
    rows = _compared(found[0], against) if against is not None else []
    is_sound = all(each.is_sound for each in found) and not rows
    is_vouched_for = allow_unsigned or all(each.signature.state == "trusted" for each in found)
    # Worse than no signature is one that is wrong.
    is_vouched_for &= all(each.signature.state != "invalid" for each in found)
    if as_json:
        click.echo(json.dumps({"verified": is_sound and is_vouched_for, **_json(found, rows)}, default=str))
    else:
        for each in found:
            _show(each)
        for row in rows:
            _show_row(row)
    sys.exit(EXIT_DIFFERS if not is_sound else 0 if is_vouched_for else EXIT_NOT_VOUCHED_FOR)


@click.command()
@click.argument("path", type=click.Path(path_type=Path), metavar="FILE")
def keygen(*, path: Path) -> None:
    """Make a key that signs manifests: FILE for this machine alone, FILE.pub for whoever verifies.

    AUDITSTREAM_EXPORT_KEY_FILE names FILE to `auditstream export`. Tell the key id to those who verify by another
    way than the exports: it is what they trust.
    """
    click.echo(f"{path.name}.pub, key id {make_key(path).key_id}")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ExportError(f"cannot read {path}: {error.strerror}") from error


def _compared(found: Verification, against: Path) -> list[RowDifference]:
    shape = shape_of(read_manifest(found.manifest)[0])
    return list(itertools.islice(compare(found.files[0].path, against, shape), SHOWN))


def _show(found: Verification) -> None:
    for file in found.files:
        click.echo(f"{file.path}: {_verdict(file)}")
        for difference in file.differences:
            click.echo(f"  {difference.text}")
    if len(found.files) < found.files_in_all:
        click.echo(f"{found.manifest}: {len(found.files)} of its {found.files_in_all} files were looked at")
    click.echo(f"{found.manifest}: {found.signature.text}")


def _verdict(file: CheckedFile) -> str:
    return "DIFFERS from what was exported" if file.differences else f"{file.rows:,} rows, as they were exported"


def _show_row(row: RowDifference) -> None:
    event = f" (event {row.id})" if row.id else ""
    place = f"before row {row.row:,}" if row.kind == "missing" else f"row {row.row:,}"
    what = {"missing": "is in the other copy alone", "extra": "is not in the other copy", "changed": "differs"}
    click.echo(f"  {place}{event} {what[row.kind]}")
    for name, (one, other) in row.columns.items():
        click.echo(f"    {name}: {one!r}, in the other copy {other!r}")


def _json(found: Sequence[Verification], rows: Sequence[RowDifference]) -> dict[str, object]:
    exports = [
        {
            "manifest": each.manifest,
            "signature": asdict(each.signature),
            "files": [{**asdict(file), "sound": not file.differences} for file in each.files],
            "files_in_all": each.files_in_all,
        }
        for each in found
    ]
    return {"exports": exports, "rows": [asdict(row) for row in rows]}
