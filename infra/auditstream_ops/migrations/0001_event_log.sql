-- One row per event. Analysts read the view `events`; only the sink writes here.
-- The content hash is the last column of the sorting key: FINAL then collapses copies of the same event only. If two
-- sinks store two different events under one id at the same moment, both rows stay, and `auditstream reconcile` lists them.
CREATE TABLE IF NOT EXISTS {database}.event_log
(
    action LowCardinality(String),
    actor Tuple(id String, type LowCardinality(String), name Nullable(String), attributes Map(LowCardinality(String), String)),
    target Tuple(id String, type LowCardinality(String), name Nullable(String), attributes Map(LowCardinality(String), String)),
    payload String COMMENT 'Compact JSON text of one object',
    occurred_at DateTime64(9, 'UTC') CODEC(Delta, ZSTD(3)) COMMENT 'The emitter''s clock',
    metadata Map(LowCardinality(String), String),
    id UUID,
    version UInt16,
    scope Tuple(id String, type LowCardinality(String), name Nullable(String), attributes Map(LowCardinality(String), String)) COMMENT 'Absent if scope.id is empty',
    success Bool,
    request Tuple(id String, attributes Map(LowCardinality(String), String)) COMMENT 'Absent if request.id is empty',
    content_hash UInt64 COMMENT 'Hash of the event''s own fields: tells a second delivery from a different event with the same id',
    ingested_at DateTime64(3, 'UTC') CODEC(Delta, ZSTD(3)) COMMENT 'The sink''s clock',
    kafka_topic LowCardinality(String),
    kafka_topic_id UUID COMMENT 'Changes when a topic is deleted and created again under the same name',
    kafka_partition Int32,
    kafka_offset Int64 CODEC(Delta, ZSTD(3)),

    -- For a UUIDv7: its milliseconds and its last byte. For any other id: a hash. Ids that were made at about the same
    -- time have neighbouring keys, so the sink's look-up reads few granules. Different ids may have the same key.
    id_key UInt64
        MATERIALIZED if(bitAnd(bitShiftRight(toUInt128(id), 76), 15) = 7, toUInt64(bitShiftRight(toUInt128(id), 80)) * 256 + toUInt64(bitAnd(toUInt128(id), 255)), cityHash64(id))
        CODEC(Delta, ZSTD(3)) COMMENT 'Used to look up an id; different ids may share a key',

    -- Look-ups by id, whatever the event's time. The projection is an index only: it holds positions, not copies of rows.
    PROJECTION by_id_key INDEX id_key TYPE basic,

    -- The page filters by these columns. With the index, a rare value reads only the granules that may hold it.
    INDEX by_request request.id TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX by_actor actor.id TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX by_target target.id TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX by_metadata mapValues(metadata) TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX by_word lowerUTF8(payload) TYPE tokenbf_v1(16384, 3, 0) GRANULARITY 1,
    INDEX by_action action TYPE set(256) GRANULARITY 1,
    INDEX by_success success TYPE minmax GRANULARITY 1,
    INDEX by_ingested ingested_at TYPE minmax GRANULARITY 1
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(occurred_at)
ORDER BY (scope.id, occurred_at, id, content_hash)
TTL toDateTime(occurred_at) + INTERVAL {retention_months} MONTH DELETE
SETTINGS
    ttl_only_drop_parts = 1,
    deduplicate_merge_projection_mode = 'rebuild',
    default_compression_codec = 'ZSTD(3)',
    -- The length of a string is stored beside the string, not in a stream of its own: both compress better together.
    string_serialization_version = 'single_stream',
    -- A batch makes one part per month that it touches. Below this size a part is one file instead of one per column.
    min_bytes_for_wide_part = 134217728;

-- FINAL collapses rows that two sinks of one partition may have inserted at the same time.
-- An event's month is part of its key, so FINAL need not compare across table partitions.
-- scope_id repeats scope.id: through a view, a condition on a tuple element does not reach the primary key, a condition
-- on a column does.
-- Runs with the rights of its creator, so that an analyst needs no right on the table.
CREATE OR REPLACE VIEW {database}.events SQL SECURITY DEFINER AS
SELECT
    action, actor, target, payload, occurred_at, metadata, id, version, scope, success, request,
    scope.id AS scope_id, ingested_at, kafka_topic, kafka_topic_id, kafka_partition, kafka_offset
FROM {database}.event_log FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1;

-- One row for each place in Kafka from which an event was stored more than once: two sinks took it at the same moment,
-- from two partitions. Each place counts as stored in its own batch, and the event log collapses the rows to one. This
-- table keeps the places, so that `auditstream verify` can still prove the ledger after a merge.
CREATE TABLE IF NOT EXISTS {database}.copies
(
    topic_id UUID,
    partition Int32,
    offset Int64,
    id UUID
)
ENGINE = ReplacingMergeTree
ORDER BY (topic_id, partition, offset);
