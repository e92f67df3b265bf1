-- Schema of a job store. Times are microseconds since the Unix epoch, ids and tokens 16 bytes, digests 32 bytes.
-- status: 0 Queued, 1 Scheduled, 2 InProgress, 3 Completed, 4 Failed, 5 Canceled, 9 quarantined.

-- One row with the state shared by all processes.
CREATE TABLE meta (
    one         INTEGER PRIMARY KEY CHECK (one = 1),
    min_version INTEGER NOT NULL,   -- the oldest schema version whose programs can use this file
    last_order  INTEGER NOT NULL,   -- the last order number
    swept       INTEGER,            -- time of the latest sweep
    quiet_until INTEGER             -- sweeps reclaim no lease until then
) STRICT;
INSERT INTO meta (one, min_version, last_order) VALUES (1, 1, 0);

-- Job types and the counts of their jobs, changed in the transaction that changes the jobs. Rows are never deleted.
CREATE TABLE types (
    type_id       INTEGER PRIMARY KEY,
    name          TEXT    NOT NULL UNIQUE,
    queued        INTEGER NOT NULL DEFAULT 0,
    scheduled     INTEGER NOT NULL DEFAULT 0,
    in_progress   INTEGER NOT NULL DEFAULT 0,
    completed     INTEGER NOT NULL DEFAULT 0,
    failed        INTEGER NOT NULL DEFAULT 0,
    canceled      INTEGER NOT NULL DEFAULT 0,
    never_started INTEGER NOT NULL DEFAULT 0,   -- scheduled jobs without an attempt
    queued_0      INTEGER NOT NULL DEFAULT 0,   -- queued jobs by priority
    queued_1      INTEGER NOT NULL DEFAULT 0,
    queued_2      INTEGER NOT NULL DEFAULT 0,
    queued_3      INTEGER NOT NULL DEFAULT 0,
    queued_4      INTEGER NOT NULL DEFAULT 0,
    queued_5      INTEGER NOT NULL DEFAULT 0,
    queued_6      INTEGER NOT NULL DEFAULT 0,
    queued_7      INTEGER NOT NULL DEFAULT 0,
    queued_8      INTEGER NOT NULL DEFAULT 0,
    queued_9      INTEGER NOT NULL DEFAULT 0
) STRICT;

-- Small fields only, as each change of a job rewrites its row.
CREATE TABLE jobs (
    seq                 INTEGER PRIMARY KEY,    -- its order number when it was accepted
    id                  BLOB    NOT NULL,
    type_id             INTEGER NOT NULL,
    priority            INTEGER NOT NULL,
    max_retries         INTEGER NOT NULL,
    max_losses          INTEGER NOT NULL,
    retention           INTEGER NOT NULL,       -- microseconds
    payload_bytes       INTEGER NOT NULL,
    fingerprint         BLOB    NOT NULL,
    owner               BLOB,
    key                 TEXT,
    repeatable          INTEGER NOT NULL,       -- has a key or an id chosen by the client, so it may be submitted again
    traceparent         TEXT,
    tracestate          TEXT,
    created_at          INTEGER NOT NULL,
    retry_of            BLOB,
    status              INTEGER NOT NULL,
    version             INTEGER NOT NULL,
    attempt             INTEGER NOT NULL,
    retries             INTEGER NOT NULL,
    losses              INTEGER NOT NULL,
    releases            INTEGER NOT NULL,
    order_number        INTEGER NOT NULL,       -- kept when a job is released or recovered
    updated_at          INTEGER NOT NULL,
    entered_at          INTEGER NOT NULL,       -- since when it has its status
    runnable_since      INTEGER NOT NULL,
    due                 INTEGER,
    started_at          INTEGER,
    ended_at            INTEGER,
    cancel_requested_at INTEGER,
    token               BLOB,                   -- of the latest claim; none after a reclaim
    settled             INTEGER,                -- the status that the settlement by `token` led to
    last_token          BLOB,                   -- of the claim before, if it was settled
    last_settled        INTEGER,
    lease_until         INTEGER,
    deadline            INTEGER,                -- when the running attempt times out
    error               TEXT,                   -- JSON
    progress            TEXT,                   -- JSON
    span                TEXT,
    retried_by          BLOB,
    log_lines           INTEGER NOT NULL,
    log_bytes           INTEGER NOT NULL,
    score               INTEGER NOT NULL        -- its position in the index of its status
) STRICT;
CREATE UNIQUE INDEX jobs_by_id ON jobs (id);
CREATE INDEX jobs_by_state ON jobs (status, type_id, score, id);
-- Sorted by type_id, then by seq, which ends every index.
CREATE INDEX jobs_by_type ON jobs (type_id);
-- SQLite uses it only for a query that says "status = 2" literally and names it: else it takes jobs_by_state and sorts.
CREATE INDEX jobs_leased ON jobs (lease_until, id) WHERE status = 2;

-- Large values, by the seq of their job. `format` says how `bytes` are encoded: 1 is unchanged.
CREATE TABLE payloads (seq INTEGER PRIMARY KEY, format INTEGER NOT NULL, bytes BLOB NOT NULL) STRICT;
CREATE TABLE results  (seq INTEGER PRIMARY KEY, format INTEGER NOT NULL, bytes BLOB NOT NULL) STRICT;

-- Ended attempts, except those of jobs that completed at their first attempt.
CREATE TABLE attempts (
    seq        INTEGER NOT NULL,
    attempt    INTEGER NOT NULL,
    started_at INTEGER NOT NULL,
    ended_at   INTEGER NOT NULL,
    outcome    INTEGER NOT NULL,    -- 0 completed, 1 retried, 2 failed, 3 canceled, 4 released, 5 lost
    error      TEXT,                -- JSON
    PRIMARY KEY (seq, attempt)
) STRICT, WITHOUT ROWID;

CREATE TABLE logs (
    seq     INTEGER NOT NULL,
    line    INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    bytes   INTEGER NOT NULL,
    record  TEXT    NOT NULL,       -- JSON
    PRIMARY KEY (seq, line)
) STRICT, WITHOUT ROWID;

-- Idempotency keys. No owner is an empty blob, as a NULL would differ from every other NULL.
CREATE TABLE keys (
    owner   BLOB    NOT NULL,
    type_id INTEGER NOT NULL,
    key     TEXT    NOT NULL,
    id      BLOB    NOT NULL,
    PRIMARY KEY (owner, type_id, key)
) STRICT, WITHOUT ROWID;

-- Records of jobs that were deleted after their retention.
CREATE TABLE tombstones (
    id          BLOB    NOT NULL PRIMARY KEY,
    owner       BLOB,
    fingerprint BLOB    NOT NULL,
    gone_until  INTEGER NOT NULL,   -- readers get "gone" until then
    forget_at   INTEGER NOT NULL,   -- when the tombstone and its key are deleted
    type_id     INTEGER NOT NULL,
    key         TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX tombstones_by_end ON tombstones (forget_at);

-- Statistics: one bucket for each minute and type.
CREATE TABLE minutes (
    minute  INTEGER NOT NULL,       -- minutes since the Unix epoch
    type_id INTEGER NOT NULL,
    record  TEXT    NOT NULL,       -- JSON
    PRIMARY KEY (minute, type_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE heartbeats (
    worker BLOB    NOT NULL PRIMARY KEY,
    at     INTEGER NOT NULL,
    until  INTEGER NOT NULL,
    record TEXT    NOT NULL         -- JSON
) STRICT, WITHOUT ROWID;

CREATE TABLE roles (
    name   TEXT    NOT NULL PRIMARY KEY,
    holder BLOB    NOT NULL,
    token  BLOB    NOT NULL,
    until  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE documents (name TEXT NOT NULL PRIMARY KEY, version BLOB NOT NULL, bytes BLOB NOT NULL) STRICT;

-- Jobs whose rows or payloads are unreadable, for an operator to inspect. The jobs' rows stay, with status 9.
CREATE TABLE quarantine (
    seq    INTEGER PRIMARY KEY,
    at     INTEGER NOT NULL,
    status INTEGER NOT NULL,        -- before the quarantine
    reason TEXT    NOT NULL
) STRICT;
