"""Holding files against their manifest, and the manifest against its signature: offline, with nothing but these.

The signature vouches for the manifest, the manifest's SHA-256 for the files. Where a file differs, its checksums
tell which rows do: each row for itself in a file of some ten thousand, a run of them in a larger one.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from auditstream_export.files.digests import Digest, RowRanges
from auditstream_export.files.part_file import rows_of
from auditstream_export.verify.manifest import manifest_name, read_manifest, shape_of
from auditstream_export.verify.signing import PublicKey, parse_public_key
from auditstream_schemas.errors import ExportError

_PIECE = 1024 * 1024
_SHOWN = 10
"""Runs of rows that are named; the rest are counted."""
_NUMBER = re.compile(r"-\d{5}(?=\.|$)")

SignatureState = Literal["trusted", "untrusted", "invalid", "unsigned"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """What is wrong with a file.

    Attributes:
        kind: ``missing``, ``length``, ``content``, ``rows`` (another number of them) or ``row`` (these rows).
        text: What to tell people.
        first_row: First row of a run that differs, counted in its file from 1; None for other kinds.
        last_row: Last row of that run, inclusive.
    """

    kind: str
    text: str
    first_row: int | None = None
    last_row: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedFile:
    """A file, held against its manifest.

    Attributes:
        path: Where it is.
        rows: How many rows it should have.
        differences: What is wrong; nothing if it is the file of the manifest.
    """

    path: Path
    rows: int
    differences: tuple[Difference, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """What the signature of a manifest is worth.

    Attributes:
        state: ``trusted``: by a key that was named; ``untrusted``: sound, but by a key that nobody named;
            ``invalid``: of other bytes, or by another key than it says; ``unsigned``: there is none.
        key_id: Whose it is, if that is known.
        text: What to tell people.
    """

    state: SignatureState
    key_id: str | None
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """An export, held against its manifest.

    Attributes:
        manifest: The manifest.
        signature: Its signature.
        files: The files that were looked at.
        files_in_all: How many there are in the export.
    """

    manifest: Path
    signature: Signature
    files: tuple[CheckedFile, ...]
    files_in_all: int

    @property
    def is_sound(self) -> bool:
        """Whether the files are those of the manifest, whoever signed it."""
        return not any(file.differences for file in self.files)


def verify_export(
    path: Path,
    *,
    manifest: Path | None = None,
    trusted: Sequence[PublicKey] = (),
    trusted_ids: Collection[str] = (),
) -> Verification:
    """Check a file of an export, or all of one.

    Args:
        path: The file; or the manifest, which stands for all its files.
        manifest: The manifest, if it does not lie beside the file under its own name.
        trusted: Keys that are trusted.
        trusted_ids: Ids of further ones.

    Raises:
        ExportError: It cannot be checked: no manifest, or one that contradicts itself.
    """
    whole = path.name.endswith(".manifest.json")
    manifest = manifest or (path if whole else _beside(path))
    found, text = read_manifest(manifest)
    files = _files(found)
    if whole:
        wanted = [(manifest.with_name(str(entry["name"])), entry) for entry in files]
    else:
        wanted = [(path, _entry(path, manifest, files))]
    return Verification(
        manifest=manifest,
        signature=_signature(found, text, manifest, trusted=trusted, trusted_ids=trusted_ids),
        files=tuple(_checked(each, entry, found) for each, entry in wanted),
        files_in_all=len(files),
    )


def _beside(path: Path) -> Path:
    candidates = (path.name, _NUMBER.sub("", path.name, count=1))
    for name in candidates:
        beside = path.with_name(manifest_name(name))
        if beside.exists():
            return beside
    raise ExportError(f"there is no {path.name}.manifest.json beside {path}: say where it is (--manifest)")


def _files(found: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    try:
        files = list(found["files"])
        following = 1
        for entry in files:
            if Path(entry["name"]).name != entry["name"] or len(entry["sha256"] + entry["content_sha256"]) != 128:
                raise ExportError(f"the manifest is malformed: {entry['name']!r} is no file")
            if entry["first_row"] != following or entry["rows"] < 0:
                raise ExportError("the manifest contradicts itself: its files do not follow each other")
            if len((entry["checksums"] or "").split()) != _runs(found["rows_per_checksum"], entry["rows"]):
                raise ExportError("the manifest contradicts itself: rows lack checksums")
            following += entry["rows"]
        if following - 1 != found["rows"] or found["truncated"] is not False:
            raise ExportError("the manifest contradicts itself: its files are not all of the export")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ExportError(f"the manifest is malformed: {error}") from error
    return files


def _runs(size: int | None, rows: int) -> int:
    if size is None:
        return 0
    if size < 1:
        raise ValueError("rows_per_checksum")
    return -(-rows // size)


def _entry(path: Path, manifest: Path, files: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    if len(files) == 1:
        # It may have been renamed: what it is, its hash says.
        return files[0]
    for entry in files:
        if entry["name"] == path.name:
            return entry
    raise ExportError(f"{manifest} tells of no file {path.name}: {len(files)} others are in it")


def _signature(
    found: Mapping[str, Any],
    text: bytes,
    manifest: Path,
    *,
    trusted: Sequence[PublicKey],
    trusted_ids: Collection[str],
) -> Signature:
    beside = manifest.with_name(f"{manifest.name}.sig")
    claimed = found.get("signed_by")
    if not beside.exists():
        if claimed:
            told = f"the manifest says that it is signed, but {beside.name} is not there"
            return Signature(state="invalid", key_id=None, text=told)
        return Signature(state="unsigned", key_id=None, text="the manifest is not signed: anybody may have written it")
    try:
        signature = beside.read_bytes()
    except OSError as error:
        raise ExportError(f"cannot read {beside}: {error.strerror}") from error
    for key in trusted:
        if key.is_signature(signature, text):
            return Signature(state="trusted", key_id=key.key_id, text=f"signed by the key {key.key_id}")
    own = _own_key(claimed)
    if own is None or not own.is_signature(signature, text):
        return Signature(state="invalid", key_id=None, text=f"{beside.name} is no signature of this manifest")
    if own.key_id in trusted_ids:
        return Signature(state="trusted", key_id=own.key_id, text=f"signed by the key {own.key_id}")
    told = (
        f"signed by the key {own.key_id}, which the manifest brings itself: nobody said that it is trusted "
        "(--public-key, --key-id)"
    )
    return Signature(state="untrusted", key_id=own.key_id, text=told)


def _own_key(claimed: object) -> PublicKey | None:
    """The key that a manifest brings itself."""
    if not isinstance(claimed, dict) or not isinstance(claimed.get("public_key"), str):
        return None
    return parse_public_key(claimed["public_key"].encode(), source="what the manifest says to be its key")


def _checked(path: Path, entry: Mapping[str, Any], manifest: Mapping[str, Any]) -> CheckedFile:
    try:
        differences = _differences(path, entry, manifest)
    except FileNotFoundError:
        differences = [Difference(kind="missing", text="there is no such file")]
    except OSError as error:
        raise ExportError(f"cannot read {path}: {error.strerror}") from error
    return CheckedFile(path=path, rows=entry["rows"], differences=tuple(differences))


def _differences(path: Path, entry: Mapping[str, Any], manifest: Mapping[str, Any]) -> list[Difference]:
    digest = Digest()
    with path.open("rb") as stream:
        while piece := stream.read(_PIECE):
            digest.add(piece)
    if digest.sha256 == entry["sha256"]:
        return []
    told = f"SHA-256 is {digest.sha256}, not {entry['sha256']}"
    if digest.bytes != entry["bytes"]:
        told += f"; it has {digest.bytes:,} bytes, not {entry['bytes']:,}"
    found = [Difference(kind="content", text=told)]
    if entry["checksums"] is None:
        return [*found, Difference(kind="row", text="which row differs cannot be told of parquet")]
    return [*found, *_rows(path, entry, manifest)]


def _rows(path: Path, entry: Mapping[str, Any], manifest: Mapping[str, Any]) -> list[Difference]:
    """Which rows differ."""
    size = manifest["rows_per_checksum"]
    expected = str(entry["checksums"]).split()
    ranges, content = RowRanges(size), Digest()
    broken = ""
    try:
        for chunk in rows_of(path, shape_of(manifest), manifest["compression"], content.add):
            ranges.add(chunk.data, chunk.starts)
    except ExportError as error:
        broken = str(error)
    checksums, rows = ranges.checksums, ranges.rows
    if broken:
        # Its last run is not whole.
        checksums = checksums[: rows // size]
        told = f"it cannot be read beyond row {rows:,} of {entry['rows']:,}: {broken}"
        found = [Difference(kind="rows", text=told)]
    elif rows != entry["rows"]:
        told = f"it has {rows:,} rows, not {entry['rows']:,}: from the first one that differs, all are shifted"
        found = [Difference(kind="rows", text=told)]
    else:
        found = []
    if not broken and content.sha256 == entry["content_sha256"]:
        return [Difference(kind="compression", text="it is compressed otherwise; what is in it is the same")]
    differing = [run for run, (one, other) in enumerate(zip(checksums, expected, strict=False)) if one != other]
    for run in differing[:_SHOWN]:
        first, last = run * size + 1, min((run + 1) * size, entry["rows"])
        which = f"row {first:,} differs" if first == last else f"a row of {first:,} to {last:,} differs"
        found.append(Difference(kind="row", text=which, first_row=first, last_row=last))
    if len(differing) > _SHOWN:
        found.append(Difference(kind="row", text=f"{len(differing) - _SHOWN:,} more runs of {size:,} rows differ"))
    if not found:
        found.append(Difference(kind="row", text="no row differs: the header does, or somebody forged the checksums"))
    return found
