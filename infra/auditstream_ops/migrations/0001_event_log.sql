-- One row an event. The content's hash closes the key, so that FINAL collapses copies of one event alone:
-- were two events of other content ever stored under one id at once, both would be there to be found. Readers take the view `events`; only the sink writes here.
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
    scope Tuple(id String, type LowCardinality(String), name Nullable(String), attributes Map(LowCardinality(String), String)) COMMENT 'Absent where scope.id is empty',
    success Bool,
    request Tuple(id String, attributes Map(LowCardinality(String), String)) COMMENT 'Absent where request.id is empty',
    content_hash UInt64 COMMENT 'Of the event''s own fields: tells a second delivery from another event under the same id',
    ingested_at DateTime64(3, 'UTC') CODEC(Delta, ZSTD(3)) COMMENT 'The sink''s clock',
    kafka_topic LowCardinality(String),
    kafka_topic_id UUID COMMENT 'Differs when a topic is deleted and created anew under its old name',
    kafka_partition Int32,
    kafka_offset Int64 CODEC(Delta, ZSTD(3)),

    -- Every look-up by id, whatever the event's time: finds the rows, holds none of them. A UUID column sorts by
    -- its second half; its number sorts as its text does, so the time-ordered ids of a batch lie together.
    PROJECTION by_id INDEX UUIDToNum(id) TYPE basic
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(occurred_at)
ORDER BY (scope.id, occurred_at, id, content_hash)
TTL toDateTime(occurred_at) + INTERVAL 12 MONTH DELETE
SETTINGS
    ttl_only_drop_parts = 1,
    deduplicate_merge_projection_mode = 'rebuild',
    default_compression_codec = 'ZSTD(3)',
    -- A text's length beside the text, not in a stream of its own: the pair repeats, and is compressed as one.
    string_serialization_version = 'single_stream',
    -- A batch has a part in each month that it touches. One file a part, not one a column, until they are merged.
    min_bytes_for_wide_part = 134217728;

-- FINAL collapses what two sinks of one partition may have inserted at once, so nobody sees it.
-- An event's month is part of its key, hence no need to look across partitions.
-- scope_id is scope.id once more: a condition on the part of a tuple does not reach the primary key through
-- a view, one on a column does.
CREATE OR REPLACE VIEW {database}.events AS
SELECT
    action, actor, target, payload, occurred_at, metadata, id, version, scope, success, request,
    scope.id AS scope_id, ingested_at, kafka_topic, kafka_topic_id, kafka_partition, kafka_offset
FROM {database}.event_log FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1;
