"""Exports written without a server: rows of one's own, and all that comes after them."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from auditstream_export.files.digests import range_size
from auditstream_export.files.draft import Draft, drafting
from auditstream_export.formats.output_format import OutputFormat
from auditstream_export.formats.records import Chunk
from auditstream_export.query.ledger_extract import LedgerExtract
from auditstream_export.query.request import ExportRequest
from auditstream_export.query.watermark import Watermark
from auditstream_export.verify.manifest import manifest_bytes, manifest_name, signature_name
from auditstream_export.verify.signing import SigningKey


def csv_row(number: int, **cells: str) -> bytes:
    """A row of an export."""
    values = {
        "action": "a.b",
        "actor": '{"id":"u-1","type":"user"}',
        "target": '{"id":"t-1","type":"x"}',
        "payload": f'{{"number":{number},"text":"{"x" * (number % 7)}"}}',
        "occurred_at": f"2026-01-01T00:00:{number % 60:02d}Z",
        "metadata": "{}",
        "id": f"00000000-0000-4000-8000-{number:012d}",
        "version": "1",
        "scope": "",
        "success": "true",
        "request": "",
    }
    escaped = {name: value.replace('"', '""') for name, value in (values | cells).items()}
    quoted = (value if name == "version" else f'"{value}"' for name, value in escaped.items())
    return ",".join(quoted).encode() + b"\r\n"


def chunk(rows: Sequence[bytes]) -> Chunk:
    starts, length = [], 0
    for row in rows:
        starts.append(length)
        length += len(row)
    return Chunk(data=b"".join(rows), starts=starts)


def write_slices(draft: Draft, slices: Sequence[Sequence[bytes]], shape: OutputFormat) -> None:
    """Write what a draft does not have yet."""
    draft.begin({"plan": "of a test"}, shape, range_size=range_size(sum(map(len, slices))))
    for rows in slices[draft.slices_done :]:
        for begin in range(0, len(rows), 3):
            draft.write(chunk(rows[begin : begin + 3]))
        draft.checkpoint()


def write_export(
    path: Path,
    slices: Sequence[Sequence[bytes]],
    *,
    shape: OutputFormat | None = None,
    key: SigningKey | None = None,
    resume: bool = False,
) -> Path:
    """Write an export of these rows, and return its manifest's path."""
    shape = shape or OutputFormat()
    with drafting(path, overwrite=False, resume=resume) as draft:
        write_slices(draft, slices, shape)
        files = draft.finish()
        manifest = manifest_bytes(
            request=ExportRequest(start=0, end=1),
            shape=shape,
            books=LedgerExtract(watermark=Watermark(positions=()), partitions=()),
            files=files,
            name=path.name,
            rows_per_checksum=range_size(sum(map(len, slices))),
            requester="ann",
            now=datetime(2026, 1, 2, tzinfo=UTC),
            key=key,
        )
        if key is not None:
            draft.add(signature_name(path.name), key.sign(manifest))
        draft.add(manifest_name(path.name), manifest)
        draft.publish(lambda part, name: part.replace(path.with_name(name)))
    return path.with_name(manifest_name(path.name))
