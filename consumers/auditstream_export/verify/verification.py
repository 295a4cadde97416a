"""Checks files against their manifest, and the manifest against its signature; offline.

The signature covers the manifest, and the manifest has the SHA-256 of each file. If a file differs, its checksums
locate the difference: the row in an export of up to ten thousand rows, a run of rows in a larger one.
"""

import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from auditstream_export.files import Digest, RowRanges, rows_of
from auditstream_export.formats import OutputFormat
from auditstream_export.verify.manifest import manifest_name, read_manifest
from auditstream_export.verify.signing import PublicKey, parse_public_key, read_bytes
from auditstream_schemas.errors import ExportError

_SHOWN_RUNS = 10
"""Runs of rows that are reported one by one; further ones are counted."""
_NUMBER = re.compile(r"-\d{5}(?=\.|$)")

SignatureState = Literal["trusted", "untrusted", "invalid", "unsigned"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A difference between a file and its manifest.

    Attributes:
        kind: ``missing``, ``content`` (another SHA-256), ``compression`` (the same content, compressed otherwise),
            ``rows`` (another number of rows) or ``row`` (these rows).
        text: Description for people.
        first_row: First row of a run that differs, counted in its file from 1; None for other kinds.
        last_row: Last row of that run, inclusive.
    """

    kind: str
    text: str
    first_row: int | None = None
    last_row: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedFile:
    """A file that was checked against its manifest.

    Attributes:
        path: Path of the file.
        rows: Number of rows according to the manifest.
        differences: The differences; empty if the file is the one that was exported.
    """

    path: Path
    rows: int
    differences: tuple[Difference, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """The result of checking a manifest's signature.

    Attributes:
        state: ``trusted``: by a trusted key; ``untrusted``: valid, but by a key that is not trusted; ``invalid``:
            of other bytes or by another key than the manifest names; ``unsigned``: the manifest names no key.
        key_id: Id of the key, if the signature is valid.
        text: Description for people.
    """

    state: SignatureState
    key_id: str | None
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """An export that was checked against its manifest.

    Attributes:
        manifest: Path of the manifest.
        signature: Result for its signature.
        files: The files that were checked.
        files_in_all: Number of files in the export.
    """

    manifest: Path
    signature: Signature
    files: tuple[CheckedFile, ...]
    files_in_all: int

    @property
    def is_sound(self) -> bool:
        """Whether every checked file is the one of the manifest, regardless of the signature."""
        return not any(file.differences for file in self.files)


def verify_export(
    path: Path, *, manifest: Path | None = None, trusted: Sequence[PublicKey] = (), trusted_ids: Collection[str] = ()
) -> Verification:
    """Check one file of an export, or all its files.

    Args:
        path: The file; or the manifest, to check all its files.
        manifest: The manifest, if it is not beside the file under its own name.
        trusted: Trusted keys.
        trusted_ids: Ids of further trusted keys.

    Raises:
        ExportError: The export cannot be checked: the manifest is missing, malformed or contradicts itself.
    """
    is_manifest = path.name.endswith(".manifest.json")
    manifest_path = manifest or (path if is_manifest else _manifest_beside(path))
    content, text = read_manifest(manifest_path)
    entries = _entries(content)
    if is_manifest:
        selected = [(manifest_path.with_name(entry["name"]), entry) for entry in entries]
    else:
        # The only file of an export may have been renamed: its hash identifies it.
        selected = [(path, entry) for entry in entries if entry["name"] == path.name or len(entries) == 1]
        if not selected:
            raise ExportError(f"{manifest_path} has no file {path.name}, but {len(entries)} others")
    return Verification(
        manifest=manifest_path,
        signature=_check_signature(content, text, manifest_path, trusted=trusted, trusted_ids=trusted_ids),
        files=tuple(_check_file(file, entry, content) for file, entry in selected),
        files_in_all=len(entries),
    )


def _manifest_beside(path: Path) -> Path:
    for name in (path.name, _NUMBER.sub("", path.name, count=1)):
        manifest = path.with_name(manifest_name(name))
        if manifest.exists():
            return manifest
    raise ExportError(f"there is no {path.name}.manifest.json beside {path}: give its path (--manifest)")


def _entries(content: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The manifest's entries of files, checked for contradictions."""
    try:
        entries, size = list(content["files"]), content["rows_per_checksum"]
        if size is not None and size < 1:
            raise ExportError(f"the manifest is malformed: it has a checksum for every {size} rows")
        next_row = 1
        for entry in entries:
            name = entry["name"]
            if not name or Path(name).name != name or len(entry["sha256"] + entry["content_sha256"]) != 128:
                raise ExportError(f"the manifest is malformed: {name!r} is not a file with two hashes")
            if entry["first_row"] != next_row or entry["rows"] < 0:
                raise ExportError("the manifest contradicts itself: its files do not follow each other")
            if len((entry["checksums"] or "").split()) != (-(-entry["rows"] // size) if size is not None else 0):
                raise ExportError("the manifest contradicts itself: rows lack checksums")
            next_row += entry["rows"]
        if next_row - 1 != content["rows"] or content["truncated"] is not False:
            raise ExportError("the manifest contradicts itself: its files are not all of the export")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ExportError(f"the manifest is malformed: {error}") from error
    return entries


def _check_signature(
    content: Mapping[str, Any],
    text: bytes,
    manifest: Path,
    *,
    trusted: Sequence[PublicKey],
    trusted_ids: Collection[str],
) -> Signature:
    path = manifest.with_name(f"{manifest.name}.sig")
    signed_by = content.get("signed_by")
    if not path.exists():
        if signed_by:
            return _invalid(f"the manifest names the key that signed it, but {path.name} is missing")
        return Signature(state="unsigned", key_id=None, text="the manifest is not signed: anybody may have written it")
    signature = read_bytes(path)
    for key in trusted:
        if key.is_signature(signature, text):
            return Signature(state="trusted", key_id=key.key_id, text=f"signed by the key {key.key_id}")
    pem = signed_by.get("public_key") if isinstance(signed_by, dict) else None
    own_key = parse_public_key(pem.encode(), source="the key in the manifest") if isinstance(pem, str) else None
    if own_key is None or not own_key.is_signature(signature, text):
        return _invalid(f"{path.name} is not a signature of this manifest")
    description = f"signed by the key {own_key.key_id}"
    if own_key.key_id in trusted_ids:
        return Signature(state="trusted", key_id=own_key.key_id, text=description)
    hint = "which nothing but the manifest names: trust it with --public-key or --key-id"
    return Signature(state="untrusted", key_id=own_key.key_id, text=f"{description}, {hint}")


def _invalid(text: str) -> Signature:
    return Signature(state="invalid", key_id=None, text=text)


def _check_file(path: Path, entry: Mapping[str, Any], content: Mapping[str, Any]) -> CheckedFile:
    try:
        differences = _differences(path, entry, content)
    except FileNotFoundError:
        differences = [Difference(kind="missing", text="the file does not exist")]
    except OSError as error:
        raise ExportError(f"cannot read {path}: {error.strerror}") from error
    return CheckedFile(path=path, rows=entry["rows"], differences=tuple(differences))


def _differences(path: Path, entry: Mapping[str, Any], content: Mapping[str, Any]) -> list[Difference]:
    with path.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        length = stream.tell()
    if sha256 == entry["sha256"]:
        return []
    text = f"SHA-256 is {sha256}, not {entry['sha256']}"
    if length != entry["bytes"]:
        text += f"; it has {length:,} bytes, not {entry['bytes']:,}"
    difference = Difference(kind="content", text=text)
    if entry["checksums"] is None:
        return [difference, Difference(kind="row", text="the differing row of a parquet file cannot be located")]
    return [difference, *_row_differences(path, entry, content)]


def _row_differences(path: Path, entry: Mapping[str, Any], content: Mapping[str, Any]) -> list[Difference]:
    size = content["rows_per_checksum"]
    ranges, digest = RowRanges(size), Digest()
    differences = []
    try:
        for chunk in rows_of(path, OutputFormat.from_dict(content), content["compression"], digest):
            ranges.add(chunk.data, chunk.starts)
        checksums = ranges.checksums
        if ranges.rows != entry["rows"]:
            text = f"it has {ranges.rows:,} rows, not {entry['rows']:,}: rows after the first difference are shifted"
            differences.append(Difference(kind="rows", text=text))
        elif digest.sha256 == entry["content_sha256"]:
            return [Difference(kind="compression", text="only the compression differs; the content is the same")]
    except ExportError as error:
        # The last run is incomplete.
        checksums = ranges.checksums[: ranges.rows // size]
        text = f"it cannot be read beyond row {ranges.rows:,} of {entry['rows']:,}: {error}"
        differences.append(Difference(kind="rows", text=text))
    expected = str(entry["checksums"]).split()
    differing = [run for run, (one, other) in enumerate(zip(checksums, expected, strict=False)) if one != other]
    for run in differing[:_SHOWN_RUNS]:
        first, last = run * size + 1, min((run + 1) * size, entry["rows"])
        text = f"row {first:,} differs" if first == last else f"a row of {first:,} to {last:,} differs"
        differences.append(Difference(kind="row", text=text, first_row=first, last_row=last))
    if len(differing) > _SHOWN_RUNS:
        text = f"{len(differing) - _SHOWN_RUNS:,} more runs of {size:,} rows differ"
        differences.append(Difference(kind="row", text=text))
    if not differences:
        text = "no row differs: the header was changed, or the checksums are forged"
        differences.append(Difference(kind="row", text=text))
    return differences
