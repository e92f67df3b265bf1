-- Reads jobs: by id, in lists, their log lines and payloads. Each function sees one moment, since it is STABLE.

-- Each job with the row of its state. Status 9: it has none, because another program deleted it.
CREATE OR REPLACE VIEW ae.states_v1 AS
SELECT j.id, j.ord AS accepted, j.created_at, j.retention, j.max_retries, j.type, j.prio, j.fingerprint, j.owner, j.owner_label,
    j.traceparent, j.tracestate, j.retry_of, j.payload, s.*
FROM ae.jobs j LEFT JOIN LATERAL (
    SELECT 0::smallint AS status, r.ord, r.entered_at, r.entered_at AS updated_at, r.due, r.started_at, NULL::bigint AS ended_at,
        NULL::bigint AS expires_at, NULL::bigint AS cancel_at, r.version, r.attempt, r.retries, r.losses, r.releases, r.settled,
        r.last_settled, r.worker, r.token, r.last_token, NULL::uuid AS retried_by, r.progress_at, r.progress, r.error,
        NULL::bytea AS result
    FROM ae.ready r WHERE r.type = j.type AND r.rank = (9 - j.prio)::smallint AND r.ord = j.ord AND r.id = j.id AND r.version = 1
    UNION ALL
    SELECT 0::smallint, r.ord, r.entered_at, r.entered_at, r.due, r.started_at, NULL, NULL, NULL, r.version, r.attempt, r.retries,
        r.losses, r.releases, r.settled, r.last_settled, r.worker, r.token, r.last_token, NULL, r.progress_at, r.progress, r.error, NULL
    FROM ae.ready r WHERE r.id = j.id AND r.version > 1
    UNION ALL
    SELECT 1::smallint, r.ord, r.entered_at, r.entered_at, r.due, r.started_at, NULL, NULL, NULL, r.version, r.attempt, r.retries,
        r.losses, r.releases, r.settled, r.last_settled, r.worker, r.token, r.last_token, NULL, r.progress_at, r.progress, r.error, NULL
    FROM ae.scheduled r WHERE r.type = j.type AND r.due = j.due AND r.id = j.id AND r.version = 1
    UNION ALL
    SELECT 1::smallint, r.ord, r.entered_at, r.entered_at, r.due, r.started_at, NULL, NULL, NULL, r.version, r.attempt, r.retries,
        r.losses, r.releases, r.settled, r.last_settled, r.worker, r.token, r.last_token, NULL, r.progress_at, r.progress, r.error, NULL
    FROM ae.scheduled r WHERE r.id = j.id AND r.version > 1
    UNION ALL
    SELECT 2::smallint, r.ord, r.entered_at, r.updated_at, r.due, r.started_at, NULL, NULL, r.cancel_at, r.version, r.attempt, r.retries,
        r.losses, r.releases, r.settled, r.last_settled, r.worker, r.token, r.last_token, NULL, r.progress_at, r.progress, r.error, NULL
    FROM ae.running r WHERE r.id = j.id
    UNION ALL
    SELECT e.status, e.ord, e.ended_at, e.ended_at, e.due, e.started_at, e.ended_at, e.expires_at, e.cancel_at, e.version, e.attempt,
        e.retries, e.losses, e.releases, e.settled, e.last_settled, e.worker, e.token, e.last_token, e.retried_by, e.progress_at,
        e.progress, e.error, e.result
    FROM ae.ended e WHERE e.id = j.id
) s ON true;

-- The jobs of these ids, in their order. Without `whole`, result and number of jobs ahead are left out. `total` is the number of
-- ids, also of those that are not found.
CREATE OR REPLACE FUNCTION ae.view_v1(ids uuid[], whole bool) RETURNS TABLE (
    total int, now bigint, id uuid, accepted bigint, created_at bigint, retention bigint, max_retries bigint, type int, prio smallint,
    owner bytea, owner_label text, traceparent text, tracestate text, retry_of uuid, status smallint, ord bigint, entered_at bigint,
    updated_at bigint, due bigint, started_at bigint, ended_at bigint, expires_at bigint, cancel_at bigint, version int, attempt int,
    retries int, losses int, releases int, worker uuid, retried_by uuid, progress_at bigint, progress text, error text, result bytea,
    ahead bigint, attempts text
) LANGUAGE plpgsql STABLE
SET jit = off SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    t bigint := ae.now_us();
BEGIN
    RETURN QUERY
    SELECT cardinality(ids), t, s.id, s.accepted, s.created_at, s.retention, s.max_retries, s.type, s.prio, s.owner, s.owner_label,
        s.traceparent, s.tracestate, s.retry_of, s.status, s.ord, s.entered_at, s.updated_at, s.due, s.started_at, s.ended_at,
        s.expires_at, s.cancel_at, s.version, s.attempt, s.retries, s.losses, s.releases, s.worker, s.retried_by, s.progress_at,
        s.progress, s.error, CASE WHEN whole THEN s.result END,
        CASE WHEN whole AND s.status = 0 THEN ae.ahead(s.type, (9 - s.prio)::smallint, s.ord, s.id, NULL) END,
        CASE WHEN s.attempt > 1 OR s.attempt = 1 AND s.status <> 3 THEN (
            SELECT json_agg(json_build_array(a.attempt, a.worker, a.started_at, a.ended_at, a.outcome, a.error) ORDER BY a.attempt)::text
            FROM ae.attempts a WHERE a.id = s.id) END
    FROM ae.states_v1 s WHERE s.id = ANY (ids) ORDER BY array_position(ids, s.id);
END $$;

-- Owner of a deleted job, and until when readers get "gone".
CREATE OR REPLACE FUNCTION ae.tomb_v1(of_id uuid) RETURNS TABLE (now bigint, owner bytea, gone_until bigint) LANGUAGE sql STABLE AS
$$ SELECT ae.now_us(), o.owner, o.gone_until FROM ae.tombs o WHERE o.id = of_id $$;

CREATE OR REPLACE FUNCTION ae.versions_v1(ids uuid[]) RETURNS TABLE (n int, version int) LANGUAGE plpgsql STABLE
SET jit = off SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY SELECT u.n::int, s.version FROM unnest(ids) WITH ORDINALITY AS u(id, n) JOIN ae.states_v1 s ON s.id = u.id
        WHERE s.id = ANY (ids) AND s.version IS NOT NULL AND (s.expires_at IS NULL OR s.expires_at > ae.now_us());
END $$;

CREATE OR REPLACE FUNCTION ae.payload_v1(of_id uuid) RETURNS TABLE (payload bytea) LANGUAGE sql STABLE
SET jit = off SET enable_seqscan = off AS
$$ SELECT s.payload FROM ae.states_v1 s
   WHERE s.id = of_id AND s.status <> 3 AND (s.expires_at IS NULL OR s.expires_at > ae.now_us()) $$;

CREATE OR REPLACE FUNCTION ae.logs_v1(of_id uuid, after bigint, most bigint)
RETURNS TABLE (line int, attempt int, updated_at bigint, record text) LANGUAGE sql STABLE
SET jit = off SET enable_seqscan = off AS
$$ SELECT l.line, l.attempt, s.updated_at, l.record FROM ae.states_v1 s JOIN ae.logs l ON l.id = s.id
   WHERE s.id = of_id AND l.line > after AND s.status IS NOT NULL AND (s.expires_at IS NULL OR s.expires_at > ae.now_us())
   ORDER BY l.line LIMIT most $$;

-- The next entries of the index of a state (`of_status`), of an owner, or of the jobs by acceptance, as `view_v1` returns them.
-- `after_rank`, `after_score` and `after_id` are those of the last entry of the page before. Order numbers of acceptance are at
-- least `first_ord` and less than `end_ord`. No `types` are all types.
CREATE OR REPLACE FUNCTION ae.list_v1(
    of_status smallint, types int[], of_owner bytea, after_rank smallint, after_score bigint, after_id uuid, first_ord bigint, end_ord bigint,
    most int
) RETURNS TABLE (
    total int, now bigint, id uuid, accepted bigint, created_at bigint, retention bigint, max_retries bigint, type int, prio smallint,
    owner bytea, owner_label text, traceparent text, tracestate text, retry_of uuid, status smallint, ord bigint, entered_at bigint,
    updated_at bigint, due bigint, started_at bigint, ended_at bigint, expires_at bigint, cancel_at bigint, version int, attempt int,
    retries int, losses int, releases int, worker uuid, retried_by uuid, progress_at bigint, progress text, error text, result bytea,
    ahead bigint, attempts text
) LANGUAGE plpgsql STABLE
SET jit = off SET enable_seqscan = off SET enable_bitmapscan = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    ids uuid[];
BEGIN
    IF types IS NULL THEN
        types := ARRAY(SELECT y.type FROM ae.types y);
    END IF;
    CASE
    WHEN of_status = 0 THEN
        SELECT array_agg(x.id ORDER BY x.rank, x.ord, x.id) INTO ids FROM (
            SELECT e.* FROM unnest(types) AS w(ty) CROSS JOIN LATERAL (
                SELECT r.rank, r.ord, r.id FROM ae.ready r WHERE r.type = w.ty AND (r.rank, r.ord, r.id) > (after_rank, after_score, after_id)
                ORDER BY r.rank, r.ord, r.id LIMIT most) e ORDER BY e.rank, e.ord, e.id LIMIT most) x;
    WHEN of_status = 1 THEN
        SELECT array_agg(x.id ORDER BY x.due, x.id) INTO ids FROM (
            SELECT e.* FROM unnest(types) AS w(ty) CROSS JOIN LATERAL (
                SELECT r.due, r.id FROM ae.scheduled r WHERE r.type = w.ty AND (r.due, r.id) > (after_score, after_id)
                ORDER BY r.due, r.id LIMIT most) e ORDER BY e.due, e.id LIMIT most) x;
    WHEN of_status = 2 THEN
        SELECT array_agg(x.id ORDER BY x.started_at, x.id) INTO ids FROM (
            SELECT e.* FROM unnest(types) AS w(ty) CROSS JOIN LATERAL (
                SELECT r.started_at, r.id FROM ae.running r WHERE r.type = w.ty AND (r.started_at, r.id) > (after_score, after_id)
                ORDER BY r.started_at, r.id LIMIT most) e ORDER BY e.started_at, e.id LIMIT most) x;
    WHEN of_status >= 3 THEN
        SELECT array_agg(x.id ORDER BY x.ord DESC, x.id DESC) INTO ids FROM (
            SELECT e.* FROM unnest(types) AS w(ty) CROSS JOIN LATERAL (
                SELECT r.ord, r.id FROM ae.ended r WHERE r.type = w.ty AND r.status = of_status AND (r.ord, r.id) < (after_score, after_id)
                ORDER BY r.ord DESC, r.id DESC LIMIT most) e ORDER BY e.ord DESC, e.id DESC LIMIT most) x;
    WHEN of_owner IS NOT NULL THEN
        SELECT array_agg(x.id ORDER BY x.ord DESC) INTO ids FROM (
            SELECT j.ord, j.id FROM ae.jobs j WHERE j.owner = of_owner AND j.ord >= first_ord AND j.ord < least(end_ord, after_score)
            ORDER BY j.ord DESC LIMIT most) x;
    ELSE
        SELECT array_agg(x.id ORDER BY x.ord DESC) INTO ids FROM (
            SELECT e.* FROM unnest(types) AS w(ty) CROSS JOIN LATERAL (
                SELECT j.ord, j.id FROM ae.jobs j WHERE j.type = w.ty AND j.ord >= first_ord AND j.ord < least(end_ord, after_score)
                ORDER BY j.ord DESC LIMIT most) e ORDER BY e.ord DESC LIMIT most) x;
    END CASE;
    RETURN QUERY SELECT * FROM ae.view_v1(ids, false);
END $$;
