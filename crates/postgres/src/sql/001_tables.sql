-- Tables of a job store. The program replaces the schema name `ae` by the configured one.
--
-- Times are microseconds since the Unix epoch. Status: 0 Queued, 1 Scheduled, 2 InProgress, 3 Completed, 4 Failed, 5 Canceled.
-- A job is one row of `jobs` and one row of the table of its state. A change of state deletes the row of one table and inserts
-- one into another, in one transaction. No table has a foreign key, since its locks would make writers wait for each other.

-- One row: the version of the schema, and the oldest version whose programs can use it.
CREATE TABLE ae.meta (one bool PRIMARY KEY DEFAULT true CHECK (one), version int NOT NULL, min_version int NOT NULL);
INSERT INTO ae.meta (version, min_version) VALUES (0, 1);

-- Order numbers of one millisecond: a call takes 128 of them. See `next_order`.
CREATE SEQUENCE ae.places INCREMENT BY 128 MINVALUE 0 START WITH 0 CYCLE;

-- Times that all processes share, by name: `sweep`, `quiet`, `reclaimed`, `fold`, `fold_all`, `probe`.
CREATE TABLE ae.marks (name text PRIMARY KEY, at bigint NOT NULL) WITH (fillfactor = 50);
INSERT INTO ae.marks (name, at) VALUES ('fold', 0), ('fold_all', 0), ('probe', 0);

-- Job types. Rows are never deleted.
CREATE TABLE ae.types (
    type int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text COLLATE "C" NOT NULL UNIQUE
);

-- Lower bounds of the order numbers of queued jobs that were never anything else, for each rank. A process that claims writes its own
-- once a second. Reads that begin there do not meet the dead rows of claimed jobs.
CREATE TABLE ae.lanes (type int PRIMARY KEY, froms bigint[] NOT NULL CHECK (cardinality(froms) = 10)) WITH (fillfactor = 50);

-- The submission. Written once and deleted once; a payload of more than 2000 bytes is emptied when its job completes.
CREATE TABLE ae.jobs (
    id          uuid     PRIMARY KEY,
    ord         bigint   NOT NULL,      -- order number of its acceptance
    created_at  bigint   NOT NULL,
    retention   bigint   NOT NULL,      -- microseconds
    due         bigint,                 -- when it was due first, if it was submitted with a delay
    max_retries bigint   NOT NULL,
    max_losses  bigint   NOT NULL,
    type        int      NOT NULL,
    bytes       int      NOT NULL,      -- of its payload
    prio        smallint NOT NULL CHECK (prio BETWEEN 0 AND 9),
    repeatable  bool     NOT NULL,      -- has a key or an id chosen by the client, so it may be submitted again
    fingerprint bytea    NOT NULL CHECK (length(fingerprint) = 32),
    owner       bytea    CHECK (length(owner) = 32),
    owner_label text,
    key         text COLLATE "C",
    traceparent text,
    tracestate  text,
    retry_of    uuid,
    payload     bytea    NOT NULL
);
CREATE INDEX jobs_accepted ON ae.jobs (type, ord);
CREATE INDEX jobs_owned ON ae.jobs (owner, ord) WHERE owner IS NOT NULL;

-- Queued jobs. A job that was never anything else has version 1. It is found by its values in `jobs`, so that it needs no
-- index of its id.
CREATE TABLE ae.ready (
    id           uuid     NOT NULL,
    ord          bigint   NOT NULL,     -- kept when a job is released or recovered, the due time if it was Scheduled
    since        bigint   NOT NULL,     -- since when it is runnable
    entered_at   bigint   NOT NULL,     -- since when it has its state
    due          bigint,                -- when it was due
    started_at   bigint,                -- the latest start
    type         int      NOT NULL,
    bytes        int      NOT NULL,
    version      int      NOT NULL DEFAULT 1,
    attempt      int      NOT NULL DEFAULT 0,
    retries      int      NOT NULL DEFAULT 0,
    losses       int      NOT NULL DEFAULT 0,
    releases     int      NOT NULL DEFAULT 0,
    log_lines    int,
    log_bytes    int,
    rank         smallint NOT NULL,     -- 9 less the priority
    settled      smallint,              -- the status that the settlement by `token` led to
    last_settled smallint,
    worker       uuid,                  -- of the latest claim
    token        uuid,                  -- of the latest claim; none after a reclaim
    last_token   uuid,                  -- of the claim before, if it was settled
    progress_at  bigint,
    progress     text,                  -- JSON
    span         text,                  -- traceparent of the attempt before
    error        text                   -- JSON
);
CREATE UNIQUE INDEX ready_order ON ae.ready (type, rank, ord, id);
CREATE INDEX ready_back ON ae.ready (type, rank, ord, id) WHERE version > 1;
CREATE INDEX ready_id ON ae.ready (id) WHERE version > 1;

-- Jobs that are due later. Version 1: submitted with a delay.
CREATE TABLE ae.scheduled (LIKE ae.ready INCLUDING DEFAULTS);
ALTER TABLE ae.scheduled ALTER COLUMN due SET NOT NULL;
CREATE UNIQUE INDEX scheduled_due ON ae.scheduled (type, due, id);
CREATE INDEX scheduled_id ON ae.scheduled (id) WHERE version > 1;

-- Jobs with a running attempt.
CREATE TABLE ae.running (
    LIKE ae.ready INCLUDING DEFAULTS,
    lease_until bigint NOT NULL,
    retention   bigint NOT NULL,
    updated_at  bigint NOT NULL,
    cancel_at   bigint,                 -- when a caller asked to cancel it
    PRIMARY KEY (id)
) WITH (fillfactor = 80);
ALTER TABLE ae.running ALTER COLUMN token SET NOT NULL, ALTER COLUMN started_at SET NOT NULL;
CREATE INDEX running_lease ON ae.running (lease_until);
CREATE INDEX running_started ON ae.running (type, started_at, id);

-- Jobs that have ended. `ord` is the order number of their end.
CREATE TABLE ae.ended (
    id           uuid     PRIMARY KEY,
    ord          bigint   NOT NULL,
    ended_at     bigint   NOT NULL,
    expires_at   bigint   NOT NULL,
    due          bigint,
    started_at   bigint,
    cancel_at    bigint,
    progress_at  bigint,
    type         int      NOT NULL,
    version      int      NOT NULL,
    attempt      int      NOT NULL,
    retries      int      NOT NULL,
    losses       int      NOT NULL,
    releases     int      NOT NULL,
    status       smallint NOT NULL CHECK (status BETWEEN 3 AND 5),
    settled      smallint,
    last_settled smallint,
    worker       uuid,
    token        uuid,
    last_token   uuid,
    retried_by   uuid,
    progress     text,
    error        text,
    result       bytea
);
CREATE INDEX ended_order ON ae.ended (type, status, ord, id);

-- Ended attempts, except the one that completed its job. Outcome: 1 retried, 2 failed, 3 canceled, 4 released, 5 lost.
CREATE TABLE ae.attempts (
    id         uuid     NOT NULL,
    attempt    int      NOT NULL,
    started_at bigint   NOT NULL,
    ended_at   bigint   NOT NULL,
    outcome    smallint NOT NULL,
    worker     uuid,
    error      text,
    PRIMARY KEY (id, attempt)
);

CREATE TABLE ae.logs (
    id      uuid NOT NULL,
    line    int  NOT NULL,
    attempt int  NOT NULL,
    bytes   int  NOT NULL,
    record  text NOT NULL,              -- JSON
    PRIMARY KEY (id, line)
);

-- Idempotency keys. No owner is an empty value, as a null would differ from every other null.
CREATE TABLE ae.keys (
    type  int   NOT NULL,
    key   text COLLATE "C" NOT NULL,
    owner bytea NOT NULL,
    id    uuid  NOT NULL,
    PRIMARY KEY (type, key, owner)
);

-- Records of jobs that were deleted after their retention.
CREATE TABLE ae.tombs (
    id          uuid   PRIMARY KEY,
    gone_until  bigint NOT NULL,        -- readers get "gone" until then
    forget_at   bigint NOT NULL,        -- when the tombstone and its key are deleted
    type        int    NOT NULL,
    fingerprint bytea  NOT NULL,
    owner       bytea,
    key         text COLLATE "C"
);
CREATE INDEX tombs_forget ON ae.tombs (forget_at);

-- Changes of counts, one row for each call and type. `fold` adds them to `counts` and `minutes`, and readers add the rest.
-- Codes: 0–5 jobs by status, 6 Scheduled jobs that never started; of a minute: 20 jobs accepted, 30–35 attempts by outcome,
-- 40–42 jobs Completed, Failed, Canceled, 43 slow attempts, 44 and 45 sums of queue time and run time, 1000 and 2000 plus a
-- bucket of the histogram of queue time and run time.
CREATE TABLE ae.deltas (at bigint NOT NULL, type int NOT NULL, codes smallint[] NOT NULL, vals bigint[] NOT NULL);
CREATE INDEX deltas_type ON ae.deltas (type, at);

CREATE TABLE ae.counts (type int NOT NULL, code smallint NOT NULL, n bigint NOT NULL, PRIMARY KEY (type, code))
    WITH (fillfactor = 50);

CREATE TABLE ae.minutes (
    minute bigint   NOT NULL,           -- minutes since the Unix epoch
    type   int      NOT NULL,
    code   smallint NOT NULL,
    n      bigint   NOT NULL,
    PRIMARY KEY (minute, type, code)
) WITH (fillfactor = 50);

CREATE TABLE ae.heartbeats (worker uuid PRIMARY KEY, at bigint NOT NULL, until bigint NOT NULL, record text NOT NULL)
    WITH (fillfactor = 50);

CREATE TABLE ae.roles (name text PRIMARY KEY, holder uuid NOT NULL, token uuid NOT NULL, until bigint NOT NULL);

CREATE TABLE ae.documents (name text PRIMARY KEY, version uuid NOT NULL, bytes bytea NOT NULL);

-- Rows of states whose job cannot be read, for an operator to inspect.
CREATE TABLE ae.quarantine (
    id     uuid     NOT NULL,
    at     bigint   NOT NULL,
    status smallint NOT NULL,           -- before the quarantine
    reason text     NOT NULL,
    row    text     NOT NULL            -- the row of its state, as JSON
);

-- Rows of these tables live for seconds. A vacuum then has to come by number of rows, not by share of the table, and must not
-- truncate, since that locks the table.
DO $$
DECLARE name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['ready', 'scheduled', 'running', 'deltas'] LOOP
        EXECUTE format('ALTER TABLE ae.%I SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, '
            'autovacuum_vacuum_cost_delay = 0, vacuum_truncate = off)', name);
    END LOOP;
END $$;
