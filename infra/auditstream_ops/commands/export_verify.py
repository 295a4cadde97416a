"""``auditstream export verify`` and ``auditstream export keygen``."""

import itertools
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click

from auditstream_export.formats import OutputFormat
from auditstream_export.verify import (
    SHOWN_ROWS,
    RowDifference,
    Verification,
    compare,
    load_public_key,
    make_key,
    read_manifest,
    verify_export,
)

EXIT_DIFFERS = 3
EXIT_NOT_TRUSTED = 4

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE...")
@click.option("--manifest", type=_FILE, help="The manifest, if it is not beside FILE under its own name.")
@click.option("--public-key", "keys", multiple=True, type=_FILE, help="A trusted key (PEM). Repeatable.")
@click.option("--key-id", "key_ids", multiple=True, metavar="ID", help="Id of a trusted key. Repeatable.")
@click.option("--allow-unsigned", is_flag=True, help="Accept a manifest without a signature by a trusted key.")
@click.option("--against", type=_FILE, metavar="OTHER", help="Another copy of FILE: print the cells that differ.")
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

    FILE is a file of an export, or a manifest to check all its files. Needs no server. Prints the differing row of a
    file, in a large file a range of rows. With --against it prints the differing cells.

    \b
    Exit codes:
      0  the files are those of the manifest, and a trusted key has signed it
      1  the files cannot be checked: the manifest is missing, for instance
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
    trusted = [load_public_key(path) for path in keys]
    exports = [verify_export(path, manifest=manifest, trusted=trusted, trusted_ids=key_ids) for path in files]
    rows: list[RowDifference] = []
    if against is not None:
        output_format = OutputFormat.from_dict(read_manifest(exports[0].manifest)[0])
        rows = list(itertools.islice(compare(files[0], against, output_format), SHOWN_ROWS))
    is_sound = all(export.is_sound for export in exports) and not rows
    states = {export.signature.state for export in exports}
    # --allow-unsigned does not accept an invalid signature.
    is_trusted = "invalid" not in states if allow_unsigned else states == {"trusted"}
    if as_json:
        click.echo(json.dumps({"verified": is_sound and is_trusted, **_json(exports, rows)}, default=str))
    else:
        for export in exports:
            _show(export)
        for row in rows:
            _show_row(row)
    sys.exit(EXIT_DIFFERS if not is_sound else 0 if is_trusted else EXIT_NOT_TRUSTED)


@click.command()
@click.argument("path", type=click.Path(path_type=Path), metavar="FILE")
def keygen(*, path: Path) -> None:
    """Make a key pair for manifests: FILE signs and stays on this machine, FILE.pub verifies.

    Set AUDITSTREAM_EXPORT_KEY_FILE to FILE for `auditstream export`. Send the key id to the verifiers by another way
    than the exports: a verifier trusts a signature because of this id.
    """
    click.echo(f"{path.name}.pub, key id {make_key(path).key_id}")


def _show(export: Verification) -> None:
    for file in export.files:
        result = "DIFFERS from what was exported" if file.differences else f"{file.rows:,} rows, as they were exported"
        click.echo(f"{file.path}: {result}")
        for difference in file.differences:
            click.echo(f"  {difference.text}")
    if len(export.files) < export.files_in_all:
        click.echo(f"{export.manifest}: {len(export.files)} of its {export.files_in_all} files were checked")
    click.echo(f"{export.manifest}: {export.signature.text}")


def _show_row(row: RowDifference) -> None:
    event = f" (event {row.id})" if row.id else ""
    position = f"before row {row.row:,}" if row.kind == "missing" else f"row {row.row:,}"
    kinds = {"missing": "is only in the other copy", "extra": "is not in the other copy", "changed": "differs"}
    click.echo(f"  {position}{event} {kinds[row.kind]}")
    for name, (one, other) in row.columns.items():
        click.echo(f"    {name}: {one!r}, in the other copy {other!r}")


def _json(exports: Sequence[Verification], rows: Sequence[RowDifference]) -> dict[str, object]:
    reports = [
        {
            "manifest": export.manifest,
            "signature": asdict(export.signature),
            "files": [{**asdict(file), "sound": not file.differences} for file in export.files],
            "files_in_all": export.files_in_all,
        }
        for export in exports
    ]
    return {"exports": reports, "rows": [asdict(row) for row in rows]}
