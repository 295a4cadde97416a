-- The ledger: one line per batch and partition, with its offsets and the number of records in each status.
-- A line that is written twice (its first acknowledgement was lost) has the same key and collapses. A sink that lost its
-- partition while it was paused may write a line that begins where its successor's first line begins: the line with the
-- later fencing time stays.
CREATE TABLE IF NOT EXISTS {database}.ledger
(
    topic LowCardinality(String),
    topic_id UUID,
    partition Int32,
    first_offset Int64,
    last_offset Int64,
    read UInt64,
    stored UInt64,
    duplicates UInt64,
    conflicts UInt64,
    invalid UInt64,
    expired UInt64 COMMENT 'Older than the retention on arrival',
    lost UInt64 DEFAULT 0 COMMENT 'Offsets that the broker deleted before any sink read them; a person entered them',
    reason String DEFAULT '' COMMENT 'For lost offsets: the reason given by the person who entered them',
    instance String COMMENT 'The sink that wrote the line, or the person who entered lost offsets',
    fencing_time UInt64 COMMENT 'When that sink was assigned the partition, by ClickHouse''s clock: nanoseconds since 1970',
    written_at DateTime64(3, 'UTC')
)
ENGINE = ReplacingMergeTree(fencing_time)
ORDER BY (topic, topic_id, partition, first_offset);
