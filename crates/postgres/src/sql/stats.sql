-- Statistics: the fold of changes into counts, and stats_v1.

-- Adds the changes of one type since a time to its counts and minutes. The caller holds the lock of all folds or of the type.
CREATE OR REPLACE FUNCTION ae.fold_type(of_type int, since bigint) RETURNS int LANGUAGE plpgsql
SET jit = off SET enable_seqscan = off SET enable_bitmapscan = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    folded int;
BEGIN
    WITH gone AS (
        DELETE FROM ae.deltas WHERE ctid = ANY (ARRAY(
            SELECT d.ctid FROM ae.deltas d WHERE d.type = of_type AND d.at >= since FOR UPDATE SKIP LOCKED))
        RETURNING at, codes, vals),
    changes AS MATERIALIZED (
        SELECT g.at / 60000000 AS minute, u.code, sum(u.v)::bigint AS n FROM gone g, unnest(g.codes, g.vals) AS u(code, v)
        GROUP BY 1, 2 HAVING sum(u.v) <> 0 OR u.code < 20),
    c AS (
        INSERT INTO ae.counts AS c (type, code, n)
        SELECT of_type, x.code, sum(x.n) FROM changes x WHERE x.code < 20 GROUP BY 2 ORDER BY 2
        ON CONFLICT (type, code) DO UPDATE SET n = c.n + excluded.n),
    m AS (
        INSERT INTO ae.minutes AS m (minute, type, code, n)
        SELECT x.minute, of_type, x.code, x.n FROM changes x WHERE x.code >= 20 ORDER BY 1, 3
        ON CONFLICT (minute, type, code) DO UPDATE SET n = m.n + excluded.n)
    SELECT count(*) INTO folded FROM gone;
    RETURN folded;
END $$;

-- Adds the changes of all types to counts and minutes, unless another process does. Reads changes of the last minute; once a minute
-- it reads all, since a long transaction may commit an old one. Then it also deletes old minutes. `bounds` has the caller's ten lower
-- bounds for each of `bounded`.
CREATE OR REPLACE FUNCTION ae.fold_v1(bounded int[], bounds bigint[]) RETURNS int LANGUAGE plpgsql
SET jit = off SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    folded int := 0; t bigint; since bigint; last_all bigint; is_all bool; of_type int;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtext('ae.fold'), 0) THEN
        RETURN 0;
    END IF;
    SELECT m.at INTO since FROM ae.marks m WHERE m.name = 'fold';
    SELECT m.at INTO last_all FROM ae.marks m WHERE m.name = 'fold_all';
    -- Read with the lock held, so that the marks never fall while the clock does not.
    t := ae.now_us();
    is_all := t < last_all OR t - last_all >= 60000000;
    since := CASE WHEN is_all THEN 0 ELSE least(since, t) - 5000000 END;
    FOR of_type IN SELECT y.type FROM ae.types y ORDER BY y.type LOOP
        folded := folded + ae.fold_type(of_type, since);
    END LOOP;
    UPDATE ae.marks SET at = t WHERE name = 'fold' OR is_all AND name = 'fold_all';
    INSERT INTO ae.lanes AS l (type, froms)
    SELECT b.type, bounds[10 * b.n - 9:10 * b.n] FROM unnest(bounded) WITH ORDINALITY AS b(type, n) ORDER BY 1
    ON CONFLICT (type) DO UPDATE SET froms = excluded.froms WHERE l.froms <> excluded.froms;
    IF is_all THEN
        -- Other calls may have written the next minute since. Minutes after it were written while the clock was ahead.
        DELETE FROM ae.minutes WHERE minute <= t / 60000000 - 360 OR minute > ae.now_us() / 60000000 + 1;
    END IF;
    RETURN folded;
END $$;

-- Statistics of one moment, as rows of a kind:
-- 0 `vals` has the time and the number of quarantined jobs
-- 1 a type: `codes` and `vals` have its counts as in `deltas`, and 100 and up: since when the oldest queued job waits, when the
--   oldest scheduled job was due, when the longest running attempt started, slow attempts, overdue ones, stale jobs, leases that
--   expired and were not reclaimed
-- 2 a minute of a type, as in `deltas`; the minute is `number`
-- 3 a live worker: `number` is the time of its heartbeat, `record` the heartbeat
CREATE OR REPLACE FUNCTION ae.stats_v1(
    since_minute bigint, cut_names text[], slow_after bigint[], overdue_after bigint[], stuck_after bigint[]
) RETURNS TABLE (kind smallint, name text, number bigint, codes smallint[], vals bigint[], record text) LANGUAGE plpgsql STABLE
SET jit = off SET enable_seqscan = off SET enable_bitmapscan = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    t bigint := ae.now_us();
    -- Changes that a fold missed are counted at most a minute late.
    since bigint := (SELECT least(m.at, t) - 5000000 FROM ae.marks m WHERE m.name = 'fold');
    -- Index entries of leases that expired before are dead rows, with the exceptions of `reclaim_v1`.
    reclaimed bigint := coalesce((SELECT m.at - 10000000 FROM ae.marks m WHERE m.name = 'reclaimed' AND m.at <= t), 0);
BEGIN
    RETURN QUERY SELECT 0::smallint, NULL::text, NULL::bigint, NULL::smallint[],
        ARRAY[t, (SELECT count(*) FROM (SELECT 1 FROM ae.quarantine LIMIT 1000) q)], NULL::text;
    RETURN QUERY
    SELECT 1::smallint, y.name, NULL::bigint, c.codes || ARRAY[100, 101, 102, 103, 104, 105, 106]::smallint[], c.vals || ARRAY[
        least(
            (SELECT min(x.since) FROM generate_series(0, 9) rk CROSS JOIN LATERAL (
                SELECT r.since FROM ae.ready r WHERE r.type = y.type AND r.rank = rk::smallint AND r.ord >= coalesce(y.froms[rk + 1], 0)
                    AND r.version = 1 ORDER BY r.ord, r.id LIMIT 16) x),
            (SELECT min(x.since) FROM generate_series(0, 9) rk CROSS JOIN LATERAL (
                SELECT r.since FROM ae.ready r WHERE r.type = y.type AND r.rank = rk::smallint AND r.version > 1
                ORDER BY r.ord, r.id LIMIT 16) x)),
        (SELECT r.due FROM ae.scheduled r WHERE r.type = y.type ORDER BY r.due, r.id LIMIT 1),
        (SELECT r.started_at FROM ae.running r WHERE r.type = y.type ORDER BY r.started_at, r.id LIMIT 1),
        (SELECT count(*) FROM (SELECT 1 FROM ae.running r WHERE r.type = y.type AND r.started_at < t - slow_after[y.cut] LIMIT 1000) x),
        (SELECT count(*) FROM (SELECT 1 FROM ae.running r WHERE r.type = y.type AND r.started_at < t - overdue_after[y.cut] LIMIT 1000) x),
        (SELECT count(*) FROM generate_series(0, 9) rk CROSS JOIN LATERAL (
            SELECT r.since FROM ae.ready r WHERE r.type = y.type AND r.rank = rk::smallint AND r.ord >= coalesce(y.froms[rk + 1], 0)
                AND r.ord < ae.order_at(t - stuck_after[y.cut] + 1000) AND r.version = 1
            ORDER BY r.ord, r.id LIMIT 1000) x WHERE x.since < t - stuck_after[y.cut])
        + (SELECT count(*) FROM generate_series(0, 9) rk CROSS JOIN LATERAL (
            SELECT r.since FROM ae.ready r WHERE r.type = y.type AND r.rank = rk::smallint AND r.version > 1
                AND r.ord < ae.order_at(t - stuck_after[y.cut] + 1000)
            ORDER BY r.ord, r.id LIMIT 1000) x WHERE x.since < t - stuck_after[y.cut])
        + (SELECT count(*) FROM (SELECT 1 FROM ae.scheduled r WHERE r.type = y.type AND r.due < t - stuck_after[y.cut] LIMIT 1000) x),
        (SELECT count(*) FROM (SELECT 1 FROM ae.running r WHERE r.lease_until >= reclaimed AND r.lease_until < t - stuck_after[y.cut]
            AND r.type = y.type LIMIT 1000) x)
    ], NULL::text
    FROM (SELECT y.type, y.name, array_position(cut_names, y.name) AS cut, l.froms FROM ae.types y LEFT JOIN ae.lanes l ON l.type = y.type) y
    CROSS JOIN LATERAL (
        SELECT array_agg(z.code) AS codes, array_agg(z.n) AS vals FROM (
            SELECT x.code, sum(x.n)::bigint AS n FROM (
                SELECT c.code, c.n FROM ae.counts c WHERE c.type = y.type
                UNION ALL SELECT u.code, u.v FROM ae.deltas d, unnest(d.codes, d.vals) AS u(code, v)
                    WHERE d.type = y.type AND d.at >= since AND u.code < 20) x
            GROUP BY x.code) z) c
    WHERE c.codes IS NOT NULL;
    IF since_minute IS NOT NULL THEN
        RETURN QUERY
        SELECT 2::smallint, y.name, z.minute, z.codes, z.vals, NULL::text
        FROM ae.types y CROSS JOIN LATERAL (
            SELECT s.minute, array_agg(s.code) AS codes, array_agg(s.n) AS vals FROM (
                SELECT x.minute, x.code, sum(x.n)::bigint AS n FROM (
                    SELECT m.minute, m.code, m.n FROM ae.minutes m WHERE m.type = y.type AND m.minute >= since_minute
                    UNION ALL SELECT d.at / 60000000, u.code, u.v FROM ae.deltas d, unnest(d.codes, d.vals) AS u(code, v)
                        WHERE d.type = y.type AND d.at >= since AND u.code >= 20) x
                WHERE x.minute >= greatest(since_minute, t / 60000000 - 359) AND x.minute <= t / 60000000
                GROUP BY 1, 2 HAVING sum(x.n) <> 0) s
            GROUP BY s.minute) z;
    END IF;
    RETURN QUERY SELECT 3::smallint, NULL::text, h.at, NULL::smallint[], NULL::bigint[], h.record
        FROM ae.heartbeats h WHERE h.until > t AND h.at <= t;
END $$;
