"""Whether bytes are one record of their schema, told at half the price of decoding them."""

import json
from collections.abc import Callable
from functools import lru_cache
from io import BytesIO

import fastavro

from auditstream_schemas.codec import BODY_ERRORS, parsed_schema
from auditstream_schemas.errors import WireFormatError
from auditstream_sink.framing import END, END_FIELD, end_field


@lru_cache(maxsize=16)
def alignment(writer_schema: str) -> Callable[[bytes], bool]:
    """A test of bodies of this schema: whether what is framed behind a body is read as what it is.

    A reader that asks for the last field alone skips all others; no text is looked into. What fails is decoded for
    its reason, so a test that is too strict costs time, not truth.
    """
    schema = json.loads(writer_schema)
    try:
        writer = parsed_schema(json.dumps({**schema, "fields": [*schema["fields"], end_field()]}))
        reader = parsed_schema(json.dumps({**schema, "fields": [end_field()]}))
    except WireFormatError:
        return lambda _body: False

    def is_aligned(body: bytes) -> bool:
        try:
            record = fastavro.schemaless_reader(BytesIO(body + END), writer, reader)
        except BODY_ERRORS:
            return False
        return isinstance(record, dict) and record[END_FIELD] == END

    return is_aligned
