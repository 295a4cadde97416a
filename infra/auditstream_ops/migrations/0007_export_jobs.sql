-- Exports that were asked for: a row for every change of a job, of which the latest holds. A worker that took a job
-- writes versions from the moment on at which it took it, so one that slept through the loss of its lease, and writes
-- later, writes below what its successor wrote.
CREATE TABLE IF NOT EXISTS {database}.export_jobs
(
    id UUID,
    version UInt64 COMMENT 'By ClickHouse''s clock, nanoseconds since 1970, when the job was asked for or taken, plus the changes since',
    state LowCardinality(String),
    scopes Array(String) COMMENT 'Ids of the scopes whose events it holds; none for all',
    requester String COMMENT 'Id of who asked',
    request String COMMENT 'JSON: what was asked for, and by whom',
    requested_at DateTime64(9, 'UTC'),
    queued_at DateTime64(9, 'UTC') COMMENT 'By ClickHouse''s clock; later than the request if it was retried',
    started_at Nullable(DateTime64(9, 'UTC')),
    ended_at Nullable(DateTime64(9, 'UTC')),
    changed_at DateTime64(9, 'UTC'),
    expires_at Nullable(DateTime64(9, 'UTC')) COMMENT 'When the files go',
    worker String,
    place String COMMENT 'Folder of the files',
    watermark String COMMENT 'JSON; fixed when the job was first taken',
    rows UInt64 COMMENT 'Written so far',
    total Nullable(UInt64),
    rate Float64 COMMENT 'Rows a second',
    files String COMMENT 'JSON: name, rows, bytes and SHA-256 of each',
    manifest String,
    key_id String COMMENT 'Of the key that signed the manifest',
    error String
)
ENGINE = ReplacingMergeTree(version)
ORDER BY id;

-- Who stops a job holds no lease: so it is a note of its own, which no worker overwrites.
CREATE TABLE IF NOT EXISTS {database}.export_cancels
(
    id UUID,
    at DateTime64(9, 'UTC') COMMENT 'By ClickHouse''s clock'
)
ENGINE = ReplacingMergeTree
ORDER BY (id, at);

CREATE OR REPLACE VIEW {database}.exports AS
SELECT
    job.* EXCEPT (state),
    if(job.state IN ('queued', 'running') AND cancel.last_at > job.queued_at, 'cancelled', job.state) AS state
FROM (SELECT * FROM {database}.export_jobs FINAL) AS job
LEFT JOIN (SELECT id, max(at) AS last_at FROM {database}.export_cancels GROUP BY id) AS cancel ON cancel.id = job.id;
