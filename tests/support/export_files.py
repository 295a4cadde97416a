"""Exports written without a server, from rows that a test provides."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from auditstream_export.files import ExportWriter, open_writer, range_size
from auditstream_export.formats import Chunk, OutputFormat
from auditstream_export.query.ledger_extract import LedgerExtract
from auditstream_export.query.request import ExportRequest
from auditstream_export.query.watermark import Watermark
from auditstream_export.verify import SigningKey, manifest_bytes, manifest_name, signature_name


def csv_row(number: int, **cells: str) -> bytes:
    """A row of a CSV file."""
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


def write_slices(writer: ExportWriter, slices: Sequence[Sequence[bytes]], output_format: OutputFormat) -> None:
    """Write the slices that the writer does not have yet."""
    writer.begin({"plan": "of a test"}, output_format, range_size=range_size(sum(map(len, slices))))
    for rows in slices[writer.slices_done :]:
        for begin in range(0, len(rows), 3):
            writer.write(chunk(rows[begin : begin + 3]))
        writer.checkpoint()


def write_export(
    path: Path,
    slices: Sequence[Sequence[bytes]],
    *,
    output_format: OutputFormat | None = None,
    key: SigningKey | None = None,
    resume: bool = False,
) -> None:
    """Write an export of these rows, with a manifest."""
    output_format = output_format or OutputFormat()
    with open_writer(path, overwrite=False, resume=resume) as writer:
        write_slices(writer, slices, output_format)
        files = writer.finish()
        manifest = manifest_bytes(
            request=ExportRequest(start=0, end=1),
            output_format=output_format,
            ledger=LedgerExtract(watermark=Watermark(positions=()), partitions=()),
            files=files,
            name=path.name,
            rows_per_checksum=range_size(sum(map(len, slices))),
            requester="ann",
            now=datetime(2026, 1, 2, tzinfo=UTC),
            key=key,
        )
        if key is not None:
            writer.add(signature_name(path.name), key.sign(manifest))
        writer.add(manifest_name(path.name), manifest)
        writer.publish(lambda part, name: part.replace(path.with_name(name)))
