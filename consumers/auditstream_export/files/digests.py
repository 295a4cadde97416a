"""What identifies bytes and rows: SHA-256 of whole files, and a checksum of every run of rows in them."""

import hashlib
import zlib
from collections.abc import Sequence

RANGES = 10_000
"""A file of so many rows at most has a checksum for each; a larger one for each so-many-th part of its rows."""


class Digest:
    """Length and SHA-256 of a run of bytes.

    Attributes:
        bytes: Their number so far.
    """

    def __init__(self) -> None:
        self.bytes = 0
        self._hash = hashlib.sha256()

    def add(self, data: bytes) -> None:
        """Take the next bytes into account."""
        self.bytes += len(data)
        self._hash.update(data)

    @property
    def sha256(self) -> str:
        """The hash of the bytes so far, hexadecimal."""
        return self._hash.hexdigest()


class RowRanges:
    """CRC-32 of every run of so many rows.

    They find where a file differs; that it does not is for its SHA-256 to say, which costs five times as much.

    Attributes:
        rows: Rows so far.
    """

    def __init__(self, size: int) -> None:
        """Begin.

        Args:
            size: Rows of a run.
        """
        self.rows = 0
        self._size = size
        self._whole: list[str] = []
        self._crc = 0

    def add(self, data: bytes, starts: Sequence[int]) -> None:
        """Take whole rows into account.

        Args:
            data: Their bytes.
            starts: Where each begins, the first at 0.
        """
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
        """One for each run so far, hexadecimal, that of the last run, which may have fewer rows, too."""
        return [*self._whole, f"{self._crc:08x}"] if self.rows % self._size else list(self._whole)


def range_size(rows: int) -> int:
    """Rows of a run in an export of so many."""
    return max(1, -(-rows // RANGES))
