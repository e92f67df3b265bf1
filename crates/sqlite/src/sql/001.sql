-- Times are microseconds since the Unix epoch, ids and tokens 16 bytes, digests 32.
-- status: 0 Queued, 1 Scheduled, 2 InProgress, 3 Completed, 4 Failed, 5 Canceled, 9 put aside.

-- One row: what all processes share beside jobs.
CREATE TABLE meta (
    one         INTEGER PRIMARY KEY CHECK (one = 1),
    last_order  INTEGER NOT NULL,
    latest      INTEGER NOT NULL,   -- the latest time that anything written was decided by: nobody goes behind it
    swept       INTEGER,            -- the latest sweep
    quiet_until INTEGER             -- until when sweeps take nothing
) STRICT;
INSERT INTO meta (one, last_order, latest) VALUES (1, 0, 0);

-- Types and the counts of their jobs, moved by the transaction that moves the jobs. Never deleted.
CREATE TABLE types (
    type          INTEGER PRIMARY KEY,
    name          TEXT    NOT NULL UNIQUE,
    queued        INTEGER NOT NULL DEFAULT 0,
    scheduled     INTEGER NOT NULL DEFAULT 0,
    in_progress   INTEGER NOT NULL DEFAULT 0,
    completed     INTEGER NOT NULL DEFAULT 0,
    failed        INTEGER NOT NULL DEFAULT 0,
    canceled      INTEGER NOT NULL DEFAULT 0,
    never_started INTEGER NOT NULL DEFAULT 0,   -- of the scheduled ones
    queued_0      INTEGER NOT NULL DEFAULT 0,   -- the queued ones by priority
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

-- Small fields only: every change of a job rewrites its row.
CREATE TABLE jobs (
    seq                 INTEGER PRIMARY KEY,    -- its place in the order of acceptance, for ever
    id                  BLOB    NOT NULL,
    type                INTEGER NOT NULL,
    status              INTEGER NOT NULL,
    score               INTEGER NOT NULL,       -- its place in the order of its state
    priority            INTEGER NOT NULL,
    max_retries         INTEGER NOT NULL,
    max_losses          INTEGER NOT NULL,
    retention           INTEGER NOT NULL,
    payload_bytes       INTEGER NOT NULL,
    fingerprint         BLOB    NOT NULL,
    owner               BLOB,
    key                 TEXT,
    repeatable          INTEGER NOT NULL,       -- it may be submitted again: it has a key or a chosen id
    traceparent         TEXT,
    tracestate          TEXT,
    version             INTEGER NOT NULL,
    attempt             INTEGER NOT NULL,
    retries             INTEGER NOT NULL,
    losses              INTEGER NOT NULL,
    releases            INTEGER NOT NULL,
    ord                 INTEGER NOT NULL,       -- order number: kept while it is released or recovered
    created_at          INTEGER NOT NULL,
    updated_at          INTEGER NOT NULL,
    entered_at          INTEGER NOT NULL,       -- when it came into its state
    runnable_since      INTEGER NOT NULL,
    due                 INTEGER,
    started_at          INTEGER,
    ended_at            INTEGER,
    cancel_requested_at INTEGER,
    token               BLOB,                   -- the latest claim's; none after a reclaim
    settled             INTEGER,                -- the state that settling by it led to
    last_token          BLOB,                   -- the claim before, if it settled
    last_settled        INTEGER,
    lease_until         INTEGER,
    deadline            INTEGER,                -- when the running attempt has taken too long
    error               TEXT,                   -- JSON
    progress            TEXT,                   -- JSON
    span                TEXT,
    retry_of            BLOB,
    retried_by          BLOB,
    log_lines           INTEGER NOT NULL DEFAULT 0,
    log_bytes           INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE UNIQUE INDEX jobs_by_id ON jobs (id);
-- Each job stands once in the order of its state.
CREATE INDEX jobs_by_state ON jobs (status, type, score, id);
-- By type, then by seq, which every index ends with.
CREATE INDEX jobs_by_type ON jobs (type);
-- Used only where a query says "status = 2" in these words, and names it: SQLite would take jobs_by_state and sort.
CREATE INDEX jobs_leased ON jobs (lease_until, id) WHERE status = 2;

-- Large values stand apart, by the seq of their job. `format` says how bytes are kept: 1 is as they came.
CREATE TABLE payloads (seq INTEGER PRIMARY KEY, format INTEGER NOT NULL, bytes BLOB NOT NULL) STRICT;
CREATE TABLE results  (seq INTEGER PRIMARY KEY, format INTEGER NOT NULL, bytes BLOB NOT NULL) STRICT;

-- Attempts that ended, but for a job that completed at its first.
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

-- Idempotency keys. No owner is the empty one: a NULL would be unlike every other NULL.
CREATE TABLE keys (
    owner BLOB    NOT NULL,
    type  INTEGER NOT NULL,
    key   TEXT    NOT NULL,
    id    BLOB    NOT NULL,
    PRIMARY KEY (owner, type, key)
) STRICT, WITHOUT ROWID;

-- What is left of a job after its retention.
CREATE TABLE tombstones (
    id          BLOB    NOT NULL PRIMARY KEY,
    owner       BLOB,
    fingerprint BLOB    NOT NULL,
    gone_until  INTEGER NOT NULL,   -- until when readers are told that it is gone
    forget_at   INTEGER NOT NULL,
    type        INTEGER NOT NULL,
    key         TEXT                -- forgotten together with it
) STRICT, WITHOUT ROWID;
CREATE INDEX tombstones_by_end ON tombstones (forget_at);

-- Counts by minute.
CREATE TABLE slots (
    minute INTEGER NOT NULL,
    type   INTEGER NOT NULL,
    record TEXT    NOT NULL,        -- JSON
    PRIMARY KEY (minute, type)
) STRICT, WITHOUT ROWID;

CREATE TABLE beats (
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

-- Jobs that could not be read, for whoever looks into it. Their rows stay, with status 9.
CREATE TABLE quarantine (
    seq    INTEGER PRIMARY KEY,
    at     INTEGER NOT NULL,
    status INTEGER NOT NULL,        -- what it was
    reason TEXT    NOT NULL
) STRICT;
