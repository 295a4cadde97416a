"""SHA-256 of whole files, and a checksum of every run of rows in them."""

import hashlib
import zlib
from collections.abc import Sequence

RANGES = 10_000
"""Checksums per export, about. An export of at most so many rows has one for each row."""


class Digest:
    """Length and SHA-256 of a run of bytes."""

    def __init__(self) -> None:
        self.bytes = 0
        self._hash = hashlib.sha256()

    def add(self, data: bytes) -> None:
        """Add the next bytes."""
        self.bytes += len(data)
        self._hash.update(data)

    @property
    def sha256(self) -> str:
        """The hash of the bytes so far, hexadecimal."""
        return self._hash.hexdigest()


class RowRanges:
    """CRC-32 of every run of rows.

    The checksums locate a difference. Only the SHA-256 proves that a file is unchanged. It is five times as slow.
    """

    def __init__(self, size: int) -> None:
        """Start without rows; ``size`` is the number of rows per run."""
        self.rows = 0
        self._size = size
        self._whole: list[str] = []
        self._crc = 0

    def add(self, data: bytes, starts: Sequence[int]) -> None:
        """Add whole rows; ``starts`` has the position of the first byte of each, beginning with 0."""
        view, begin = memoryview(data), 0
        edge = self._size - self.rows % self._size
        while edge <= len(starts):
            end = starts[edge] if edge < len(starts) else len(data)
            self._whole.append(f"{zlib.crc32(view[begin:end], self._crc):08x}")
            self._crc, begin = 0, end
            edge += self._size
        self._crc = zlib.crc32(view[begin:], self._crc)
        self.rows += len(starts)

    @property
    def checksums(self) -> list[str]:
        """One per run so far, hexadecimal; the last run may have fewer rows."""
        return [*self._whole, f"{self._crc:08x}"] if self.rows % self._size else list(self._whole)


def range_size(rows: int) -> int:
    """Rows per run in an export of this many rows."""
    return max(1, -(-rows // RANGES))
