-- Rows of one event that came from more than one place: two sinks took it at the same moment, from two partitions.
-- Each counts as stored in its batch, and the event log collapses them to one. Here stays where each came from, so
-- that the books can be shown to be right when the others, and the topic, are gone.
CREATE TABLE IF NOT EXISTS {database}.copies
(
    topic_id UUID,
    partition Int32,
    offset Int64,
    id UUID
)
ENGINE = ReplacingMergeTree
ORDER BY (topic_id, partition, offset);
