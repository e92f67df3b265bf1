-- Claims runnable jobs.

-- Makes due jobs of these types runnable, the soonest first, at most 100. The due time decides their order number.
CREATE OR REPLACE FUNCTION ae.promote(types int[], t bigint) RETURNS uuid[] LANGUAGE plpgsql
SET jit = off SET enable_seqscan = off SET enable_bitmapscan = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    promoted uuid[];
BEGIN
    WITH h AS MATERIALIZED (
        SELECT x.c FROM unnest(types) AS w(ty) CROSS JOIN LATERAL (
            SELECT s.ctid AS c, s.due, s.id FROM ae.scheduled s WHERE s.type = w.ty AND s.due <= t
            ORDER BY s.due, s.id LIMIT 100 FOR UPDATE SKIP LOCKED) x
        ORDER BY x.due, x.id LIMIT 100),
    gone AS (DELETE FROM ae.scheduled WHERE ctid = ANY (ARRAY(SELECT h.c FROM h)) RETURNING *),
    d AS (
        INSERT INTO ae.deltas (at, type, codes, vals)
        SELECT t, g.type, ARRAY[0, 1, 6]::smallint[], ARRAY[count(*), -count(*), -count(*) FILTER (WHERE g.attempt = 0)]
        FROM gone g GROUP BY g.type),
    r AS (
        INSERT INTO ae.ready (id, ord, since, entered_at, due, started_at, type, bytes, version, attempt, retries, losses, releases,
            log_lines, log_bytes, rank, settled, last_settled, worker, token, last_token, progress_at, progress, span, error)
        SELECT g.id, ae.order_at(g.due) + (g.ord & 262143), g.since, t, g.due, g.started_at, g.type, g.bytes, g.version + 1, g.attempt,
            g.retries, g.losses, g.releases, g.log_lines, g.log_bytes, g.rank, g.settled, g.last_settled, g.worker, g.token,
            g.last_token, g.progress_at, g.progress, g.span, g.error
        FROM gone g RETURNING id)
    SELECT array_agg(r.id) INTO promoted FROM r;
    RETURN coalesce(promoted, '{}');
END $$;

-- Claims at most `most` jobs with at most `most_bytes` of payload, of `types` with at most `quotas` of each.
--
-- `froms` has ten lower bounds for each type, one for each rank: the caller knows that a job which is queued for the first time
-- has no smaller order number. With them a claim does not read the dead rows at the head of the index. Jobs that were promoted
-- or came back are in an index of their own, which is read from its head.
--
-- Returns one row for each attempt, in the order to start. A job whose submission is missing has no payload. Then one row: now, when to
-- claim again in microseconds from now (0: jobs are left, null: no job waits), and the jobs that were promoted.
CREATE OR REPLACE FUNCTION ae.claim_v1(
    lease_token uuid, by_worker uuid, types int[], quotas int[], froms bigint[], most int, most_bytes bigint, lease bigint
) RETURNS TABLE (now bigint, wait bigint, promoted uuid[], id uuid, type int, rank smallint, ord bigint, attempt int, retries int,
    since bigint, span text, created_at bigint, max_retries bigint, prio smallint, owner bytea, owner_label text, traceparent text,
    tracestate text, payload bytea
) LANGUAGE plpgsql
SET jit = off SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    t bigint := ae.now_us();
    due bigint;
    moved uuid[] := '{}';
BEGIN
    SELECT min(x.due) INTO due FROM unnest(types) AS w(ty) CROSS JOIN LATERAL (
        SELECT s.due FROM ae.scheduled s WHERE s.type = w.ty ORDER BY s.due, s.id LIMIT 1) x;
    IF due <= t THEN
        moved := ae.promote(types, t);
        SELECT min(x.due) INTO due FROM unnest(types) AS w(ty) CROSS JOIN LATERAL (
            SELECT s.due FROM ae.scheduled s WHERE s.type = w.ty ORDER BY s.due, s.id LIMIT 1) x;
    END IF;
    RETURN QUERY
    WITH lanes AS MATERIALIZED (
        SELECT types[1 + x / 10] AS ty, (x % 10)::smallint AS rk, froms[1 + x] AS f, quotas[1 + x / 10] AS n
        FROM generate_series(0, cardinality(types) * 10 - 1) x),
    h AS MATERIALIZED (
        SELECT r.* FROM lanes l CROSS JOIN LATERAL (
            SELECT r.ctid AS c, r.type, r.rank, r.ord, r.id, r.bytes FROM ae.ready r
            WHERE r.type = l.ty AND r.rank = l.rk AND r.ord >= l.f AND r.version = 1
            ORDER BY r.ord, r.id LIMIT least(l.n, most) FOR UPDATE SKIP LOCKED) r
        UNION ALL
        SELECT r.* FROM unnest(types, quotas) AS w(ty, n) CROSS JOIN LATERAL (
            SELECT r.ctid AS c, r.type, r.rank, r.ord, r.id, r.bytes FROM ae.ready r
            WHERE r.type = w.ty AND r.version > 1
            ORDER BY r.rank, r.ord, r.id LIMIT least(w.n, most) FOR UPDATE SKIP LOCKED) r),
    first AS MATERIALIZED (
        SELECT x.* FROM (SELECT h.*, row_number() OVER (PARTITION BY h.type ORDER BY h.rank, h.ord, h.id) AS of_type FROM h) x
        WHERE x.of_type <= quotas[array_position(types, x.type)]),
    fit AS MATERIALIZED (
        SELECT x.c FROM (SELECT f.c, sum(f.bytes) OVER o AS total, row_number() OVER o AS place FROM first f
                         WINDOW o AS (ORDER BY f.rank, f.ord, f.id ROWS UNBOUNDED PRECEDING)) x
        WHERE x.place <= most AND (x.total <= most_bytes OR x.place = 1)),
    gone AS (DELETE FROM ae.ready WHERE ctid = ANY (ARRAY(SELECT fit.c FROM fit)) RETURNING *),
    -- A job may be accepted after `t` was read and before this statement sees it. It starts no earlier than it became runnable.
    a AS MATERIALIZED (
        SELECT g.*, greatest(t, g.since) AS starts_at, greatest(t - g.since, 0) AS waited, j.retention, j.created_at, j.max_retries, j.prio, j.owner, j.owner_label,
            j.traceparent, j.tracestate, j.payload
        -- `OFFSET 0` keeps this a search of the index for each job, also if the planner assumes an empty table.
        FROM gone g LEFT JOIN LATERAL (SELECT * FROM ae.jobs j WHERE j.id = g.id OFFSET 0) j ON true),
    run AS (
        INSERT INTO ae.running (id, ord, since, entered_at, due, started_at, type, bytes, version, attempt, retries, losses, releases,
            log_lines, log_bytes, rank, last_settled, worker, token, last_token, span, error, lease_until, retention, updated_at)
        SELECT a.id, a.ord, a.since, a.starts_at, a.due, a.starts_at, a.type, a.bytes, a.version + 1, a.attempt + 1,
            a.retries, a.losses, a.releases, a.log_lines, a.log_bytes, a.rank, CASE WHEN a.token IS NOT NULL THEN a.settled END, by_worker,
            lease_token, CASE WHEN a.settled IS NOT NULL THEN a.token END, a.span, a.error, t + lease, coalesce(a.retention, 0), a.starts_at
        FROM a),
    d AS (
        INSERT INTO ae.deltas (at, type, codes, vals)
        SELECT t, y.type, array_agg(y.code), array_agg(y.v) FROM (
            SELECT x.type, x.code, sum(x.v)::bigint AS v FROM (
                SELECT a.type, unnest(ARRAY[0, 2, 44, 1000 + ae.bucket(a.waited)]::smallint[]) AS code,
                    unnest(ARRAY[-1, 1, a.waited, 1]) AS v FROM a) x
            GROUP BY 1, 2) y
        GROUP BY y.type)
    SELECT a.starts_at, NULL::bigint, NULL::uuid[], a.id, a.type, a.rank, CASE WHEN a.version = 1 THEN a.ord END, a.attempt + 1, a.retries,
        a.since, a.span, a.created_at, a.max_retries, a.prio, a.owner, a.owner_label, a.traceparent, a.tracestate, a.payload
    FROM a ORDER BY a.rank, a.ord, a.id;

    RETURN QUERY SELECT t, CASE WHEN ae.any_ready(types, froms) THEN 0 WHEN due IS NOT NULL THEN greatest(due - t, 0) END, moved, NULL::uuid, NULL::int,
        NULL::smallint, NULL::bigint, NULL::int, NULL::int, NULL::bigint, NULL::text, NULL::bigint, NULL::bigint, NULL::smallint,
        NULL::bytea, NULL::text, NULL::text, NULL::text, NULL::bytea;
END $$;

-- Whether jobs of these types are queued, as far as the bounds allow.
CREATE OR REPLACE FUNCTION ae.any_ready(types int[], froms bigint[]) RETURNS bool LANGUAGE plpgsql
SET jit = off SET enable_seqscan = off SET enable_bitmapscan = off SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    RETURN EXISTS (SELECT 1 FROM unnest(types) AS w(ty) WHERE (
            SELECT true FROM ae.ready r WHERE r.type = w.ty AND r.version > 1 ORDER BY r.rank, r.ord, r.id LIMIT 1))
        OR EXISTS (SELECT 1 FROM generate_series(0, cardinality(types) * 10 - 1) x WHERE (
            SELECT true FROM ae.ready r WHERE r.type = types[1 + x / 10] AND r.rank = (x % 10)::smallint AND r.ord >= froms[1 + x]
            ORDER BY r.ord, r.id LIMIT 1));
END $$;
