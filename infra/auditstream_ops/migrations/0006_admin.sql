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
