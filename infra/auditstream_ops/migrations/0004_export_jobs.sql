-- Export jobs: one row for each change of a job; the row with the highest version is valid. A worker that takes a job
-- starts its versions at the time at which it took it. A worker that lost its lease while it was paused therefore writes
-- lower versions than its successor.
CREATE TABLE IF NOT EXISTS {database}.export_jobs
(
    id UUID,
    version UInt64 COMMENT 'Time of the request or of the take by ClickHouse''s clock, nanoseconds since 1970, plus the number of changes since',
    state LowCardinality(String),
    scopes Array(String) COMMENT 'Scope ids whose events the export holds; empty for all',
    requester String COMMENT 'Id of the person who requested it',
    request String COMMENT 'JSON: filter, range, format and requester',
    requested_at DateTime64(9, 'UTC'),
    queued_at DateTime64(9, 'UTC') COMMENT 'By ClickHouse''s clock; later than requested_at after a retry',
    started_at Nullable(DateTime64(9, 'UTC')),
    ended_at Nullable(DateTime64(9, 'UTC')),
    changed_at DateTime64(9, 'UTC'),
    expires_at Nullable(DateTime64(9, 'UTC')) COMMENT 'When the files are deleted',
    worker String,
    directory String COMMENT 'Folder of the files',
    watermark String COMMENT 'JSON; fixed when the job was first taken',
    rows UInt64 COMMENT 'Rows written so far',
    total Nullable(UInt64),
    rate Float64 COMMENT 'Rows per second',
    files String COMMENT 'JSON: name, rows, bytes and SHA-256 of each file',
    manifest String,
    key_id String COMMENT 'Id of the key that signed the manifest',
    error String
)
ENGINE = ReplacingMergeTree(version)
ORDER BY id;

-- A cancellation is a row of its own, because the person who cancels holds no lease and must not be overwritten.
CREATE TABLE IF NOT EXISTS {database}.export_cancels
(
    id UUID,
    at DateTime64(9, 'UTC') COMMENT 'By ClickHouse''s clock'
)
ENGINE = ReplacingMergeTree
ORDER BY (id, at);

CREATE OR REPLACE VIEW {database}.exports SQL SECURITY DEFINER AS
SELECT
    job.* EXCEPT (state),
    if(job.state IN ('queued', 'running') AND cancel.last_at > job.queued_at, 'cancelled', job.state) AS state
FROM (SELECT * FROM {database}.export_jobs FINAL) AS job
LEFT JOIN (SELECT id, max(at) AS last_at FROM {database}.export_cancels GROUP BY id) AS cancel ON cancel.id = job.id;
