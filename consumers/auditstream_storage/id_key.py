"""What the event log is looked up by when an id is known."""


def id_key(uuid: str) -> str:
    """The SQL of an id's key, as the column ``id_key`` of the table ``event_log`` has it: 64 bits at most.

    Of a UUIDv7 (RFC 9562, section 5.7) the milliseconds, and behind them its last byte, which is random whatever the
    generator puts between: the ids of a batch lie together, and a key is a third to keep of what the id is. Of any
    other id a hash. Different ids may share a key: a look-up compares the ids, too.

    Args:
        uuid: SQL of type UUID.
    """
    number = f"toUInt128({uuid})"
    of_v7 = f"toUInt64(bitShiftRight({number}, 80)) * 256 + toUInt64(bitAnd({number}, 255))"
    return f"if(bitAnd(bitShiftRight({number}, 76), 15) = 7, {of_v7}, cityHash64({uuid}))"
