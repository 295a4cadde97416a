-- Tokens of the API. A token is stored as the hash of its secret; each change is a new row with the same id.
CREATE TABLE IF NOT EXISTS {database}.api_tokens
(
    id UUID,
    hash String COMMENT 'SHA-256 of the secret part, hexadecimal',
    name String COMMENT 'What the token is used for',
    role LowCardinality(String),
    scopes Array(String) COMMENT 'Scope ids that an admin''s token may read',
    created_at DateTime64(3, 'UTC'),
    created_by String,
    expires_at DateTime64(3, 'UTC'),
    revoked_at Nullable(DateTime64(3, 'UTC')),
    revoked_by String,
    changed_at UInt64 COMMENT 'Nanoseconds since 1970; the latest row is valid'
)
ENGINE = ReplacingMergeTree(changed_at)
ORDER BY id;
