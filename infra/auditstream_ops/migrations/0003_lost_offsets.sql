-- Offsets that the broker deleted before any sink read them, entered by a person: a line of its own, which read
-- nothing. `instance` says who accepted it.
ALTER TABLE {database}.ledger
    ADD COLUMN IF NOT EXISTS lost UInt64 DEFAULT 0 COMMENT 'Offsets deleted by the broker before any sink read them' AFTER expired,
    ADD COLUMN IF NOT EXISTS why String DEFAULT '' COMMENT 'Of a loss: what the person who accepted it said';

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
    sum(lost) AS lost,
    max(at) AS last_at
FROM {database}.ledger FINAL
GROUP BY topic, topic_id, partition;
