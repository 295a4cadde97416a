-- The books: which offsets a batch took, and what became of each record. A line written twice (its first
-- acknowledgement was lost) has the same key and collapses. So does the line of a sink that slept through the
-- loss of its partition: it begins where its successor's first line begins, and the later epoch stays.
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
    instance String COMMENT 'The sink that wrote the line',
    epoch UInt64 COMMENT 'When that sink was given the partition, by ClickHouse''s clock: nanoseconds since 1970',
    at DateTime64(3, 'UTC')
)
ENGINE = ReplacingMergeTree(epoch)
ORDER BY (topic, topic_id, partition, first_offset);

CREATE OR REPLACE VIEW {database}.books AS
SELECT
    topic, topic_id, partition,
    min(first_offset) AS first_offset,
    max(last_offset) AS last_offset,
    count() AS batches,
    sum(read) AS read,
    sum(stored) AS stored,
    sum(duplicates) AS duplicates,
    sum(conflicts) AS conflicts,
    sum(invalid) AS invalid,
    sum(expired) AS expired,
    max(at) AS last_at
FROM {database}.ledger FINAL
GROUP BY topic, topic_id, partition;
