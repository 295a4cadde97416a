"""The key by which the event log is looked up when an id is known."""


def id_key(uuid: str) -> str:
    """The SQL of an id's key, a UInt64: the same expression as the column ``id_key`` of the table ``event_log``.

    For a UUIDv7 (RFC 9562, section 5.7) the key is the milliseconds followed by the last byte, which every generator
    fills at random. So the keys of a batch lie together, and take a third of the space of the ids. For any other id
    the key is a hash. Different ids may have the same key: a look-up must compare the ids, too.

    Args:
        uuid: SQL of type UUID.
    """
    number = f"toUInt128({uuid})"
    of_v7 = f"toUInt64(bitShiftRight({number}, 80)) * 256 + toUInt64(bitAnd({number}, 255))"
    return f"if(bitAnd(bitShiftRight({number}, 76), 15) = 7, {of_v7}, cityHash64({uuid}))"
