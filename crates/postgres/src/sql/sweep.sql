-- Periodic calls: reclaim_v1 requeues jobs whose lease expired, prune_v1 deletes expired jobs.

-- Reclaims at most `most` expired leases, the oldest first. If no sweep ran for a whole lease, sweeps take nothing for one more.
-- Unless `is_full`, it begins with leases that expired 10 seconds before the mark `reclaimed`: when the last sweep found no more. Older
-- entries of the index are dead rows, or leases that another transaction locked or committed late, which a full sweep finds.
--
-- Returns one row for each job, and one row without a job: the time, how long sweeps still pause (null: they do not), and whether
-- more leases have expired.
CREATE OR REPLACE FUNCTION ae.reclaim_v1(most int, lease bigint, lost text, canceled text, is_full bool)
RETURNS TABLE (now bigint, pause bigint, more bool, id uuid, type int, attempt int, after smallint, created_at bigint, traceparent text, tracestate text)
LANGUAGE plpgsql SET jit = off SET enable_seqscan = off SET enable_bitmapscan = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    t bigint; swept bigint; quiet bigint; ended_since bigint := 0; ids uuid[]; tokens uuid[]; attempts int[]; leaves_some bool := false;
BEGIN
    INSERT INTO ae.marks (name, at) VALUES ('sweep', 0), ('quiet', 0), ('reclaimed', 0) ON CONFLICT DO NOTHING;
    -- The lock of this row makes sweeps run one after another.
    SELECT m.at INTO swept FROM ae.marks m WHERE m.name = 'sweep' FOR UPDATE;
    SELECT m.at INTO quiet FROM ae.marks m WHERE m.name = 'quiet';
    t := ae.now_us();
    IF t - swept > lease THEN
        quiet := t + lease;
    END IF;
    -- At most a lease from now, also if another process has longer leases or the clock was set back.
    quiet := least(quiet, t + lease);
    UPDATE ae.marks m SET at = CASE m.name WHEN 'sweep' THEN t ELSE quiet END WHERE m.name IN ('sweep', 'quiet');
    IF quiet > t THEN
        RETURN QUERY SELECT t, quiet - t, false, NULL::uuid, NULL::int, NULL::int, NULL::smallint, NULL::bigint, NULL::text, NULL::text;
        RETURN;
    END IF;
    -- A lease whose end a wrong clock put more than a day ahead ends one lease from now.
    UPDATE ae.running r SET lease_until = t + lease WHERE r.lease_until > t + 86400000000;
    IF NOT is_full THEN
        ended_since := (SELECT CASE WHEN m.at <= t THEN m.at - 10000000 ELSE 0 END FROM ae.marks m WHERE m.name = 'reclaimed');
    END IF;
    SELECT array_agg(x.id ORDER BY x.lease_until, x.id), array_agg(x.token ORDER BY x.lease_until, x.id),
           array_agg(x.attempt ORDER BY x.lease_until, x.id)
        INTO ids, tokens, attempts
        FROM (SELECT r.id, r.token, r.attempt, r.lease_until FROM ae.running r WHERE r.lease_until >= ended_since AND r.lease_until <= t
              ORDER BY r.lease_until, r.id LIMIT most FOR UPDATE SKIP LOCKED) x;
    IF ids IS NOT NULL THEN
        RETURN QUERY
        SELECT s.settled_at, NULL::bigint, false, ids[s.n], s.type, attempts[s.n], s.after, j.created_at, j.traceparent, j.tracestate
        FROM ae.settle_v1(ids, tokens, array_fill(5::smallint, ARRAY[cardinality(ids)]), NULL, array_fill(lost, ARRAY[cardinality(ids)]),
            ARRAY[canceled], NULL, NULL, NULL, NULL, NULL, NULL, NULL) s
        -- As in `claim_v1`.
        LEFT JOIN LATERAL (SELECT * FROM ae.jobs j WHERE j.id = ids[s.n] OFFSET 0) j ON true ORDER BY s.n;
        leaves_some := EXISTS (SELECT 1 FROM ae.running r WHERE r.lease_until >= ended_since AND r.lease_until <= t);
    END IF;
    -- After a full sweep that left some, the next sweep begins at the head as well.
    IF is_full OR NOT leaves_some THEN
        UPDATE ae.marks m SET at = CASE WHEN leaves_some THEN 0 ELSE t END WHERE m.name = 'reclaimed';
    END IF;
    RETURN QUERY SELECT t, NULL::bigint, leaves_some, NULL::uuid, NULL::int, NULL::int, NULL::smallint, NULL::bigint, NULL::text, NULL::text;
END $$;

-- Replaces expired jobs by tombstones, then deletes tombstones past their time, at most `most` in total. Stops at the first
-- unexpired job of each index. Returns how many.
CREATE OR REPLACE FUNCTION ae.prune_v1(most int) RETURNS int LANGUAGE plpgsql
SET jit = off SET enable_seqscan = off SET enable_bitmapscan = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    t bigint := ae.now_us();
    day bigint := 86400000000;
    ids uuid[]; pruned int; forgotten int;
BEGIN
    ids := ARRAY(
        SELECT h.id FROM (SELECT y.type, st.status::smallint FROM ae.types y, unnest(ARRAY[3, 4, 5]) AS st(status)) w
        CROSS JOIN LATERAL (
            SELECT x.id, x.ord, bool_and(x.expires_at <= t) OVER (ORDER BY x.ord, x.id) AS expired FROM (
                SELECT e.id, e.ord, e.expires_at FROM ae.ended e WHERE e.type = w.type AND e.status = w.status
                ORDER BY e.ord, e.id LIMIT most FOR UPDATE SKIP LOCKED) x) h
        WHERE h.expired LIMIT most);
    WITH e AS (DELETE FROM ae.ended WHERE id = ANY (ids) RETURNING id, type, status, expires_at),
    j AS (DELETE FROM ae.jobs WHERE id = ANY (ids) RETURNING id, type, retention, created_at, repeatable, fingerprint, owner, key),
    a AS (DELETE FROM ae.attempts WHERE id = ANY (ids)),
    l AS (DELETE FROM ae.logs WHERE id = ANY (ids)),
    o AS (
        INSERT INTO ae.tombs (id, gone_until, forget_at, type, fingerprint, owner, key)
        SELECT j.id, e.expires_at + j.retention,
            CASE WHEN j.repeatable THEN greatest(e.expires_at + j.retention, j.created_at + day) ELSE e.expires_at + j.retention END,
            j.type, j.fingerprint, j.owner, j.key
        FROM j JOIN e ON e.id = j.id ON CONFLICT DO NOTHING),
    d AS (
        INSERT INTO ae.deltas (at, type, codes, vals)
        SELECT t, x.type, array_agg(x.status), array_agg(-x.n) FROM (SELECT e.type, e.status, count(*) AS n FROM e GROUP BY 1, 2) x GROUP BY x.type)
    SELECT count(*) INTO pruned FROM e;
    WITH o AS (
        DELETE FROM ae.tombs WHERE id = ANY (ARRAY(
            SELECT x.id FROM ae.tombs x WHERE x.forget_at <= t ORDER BY x.forget_at LIMIT most - pruned FOR UPDATE SKIP LOCKED))
        RETURNING id, type, key, owner),
    k AS (DELETE FROM ae.keys WHERE ctid = ANY (ARRAY(
        SELECT (SELECT k.ctid FROM ae.keys k WHERE k.type = o.type AND k.key = o.key AND k.owner = coalesce(o.owner, '') AND k.id = o.id)
        FROM o WHERE o.key IS NOT NULL)))
    SELECT count(*) INTO forgotten FROM o;
    RETURN pruned + forgotten;
END $$;
