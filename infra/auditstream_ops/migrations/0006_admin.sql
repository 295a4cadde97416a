-- Tokens of the admins' API. What is kept of one is a hash of its secret; a change is a row with the same id.
CREATE TABLE IF NOT EXISTS {database}.api_tokens
(
    id UUID,
    hash String COMMENT 'SHA-256 of the secret part, hexadecimal',
    name String COMMENT 'What it is for',
    role LowCardinality(String),
    scopes Array(String) COMMENT 'Ids of the scopes of an admin''s token',
    created_at DateTime64(3, 'UTC'),
    created_by String,
    expires_at DateTime64(3, 'UTC'),
    revoked_at Nullable(DateTime64(3, 'UTC')),
    revoked_by String,
    changed_at UInt64 COMMENT 'Nanoseconds since 1970: the latest row holds'
)
ENGINE = ReplacingMergeTree(changed_at)
ORDER BY id;

-- What a page of events is filtered by, so that a value that few events have costs the granules that may have it, not
-- all of them. Of the demo's events they take 0.8 bytes each, nearly all of it for the ids of requests.
ALTER TABLE {database}.event_log
    ADD INDEX IF NOT EXISTS by_request request.id TYPE bloom_filter(0.01) GRANULARITY 1,
    ADD INDEX IF NOT EXISTS by_actor actor.id TYPE bloom_filter(0.01) GRANULARITY 1,
    ADD INDEX IF NOT EXISTS by_target target.id TYPE bloom_filter(0.01) GRANULARITY 1,
    ADD INDEX IF NOT EXISTS by_metadata mapValues(metadata) TYPE bloom_filter(0.01) GRANULARITY 1,
    ADD INDEX IF NOT EXISTS by_word lowerUTF8(payload) TYPE tokenbf_v1(16384, 3, 0) GRANULARITY 1,
    ADD INDEX IF NOT EXISTS by_action action TYPE set(256) GRANULARITY 1,
    ADD INDEX IF NOT EXISTS by_success success TYPE minmax GRANULARITY 1,
    ADD INDEX IF NOT EXISTS by_ingested ingested_at TYPE minmax GRANULARITY 1;

-- For what is stored already; goes on in the background.
ALTER TABLE {database}.event_log
    MATERIALIZE INDEX by_request,
    MATERIALIZE INDEX by_actor,
    MATERIALIZE INDEX by_target,
    MATERIALIZE INDEX by_metadata,
    MATERIALIZE INDEX by_word,
    MATERIALIZE INDEX by_action,
    MATERIALIZE INDEX by_success,
    MATERIALIZE INDEX by_ingested
SETTINGS mutations_sync = 0;
