-- Ends attempts: settle_v1 for workers and for sweeps, and the log lines and progress of attempts.

-- Ends attempts, at most 64 of distinct jobs. A lease that does not run its job changes nothing.
--
-- Outcomes: 0 completed, 1 retry, 2 failed, 3 canceled, 4 released, 5 lost. `cancels` has the errors that are stored if the
-- cancellation was requested, one for all or one for each. `progresses` has null to keep the progress.
--
-- Answers one row for each attempt that this lease ended, now or before: its place in the arrays, the job's status after it,
-- whether it was now, and the time. A settlement may wait for another change of the job, and is no earlier than that.
CREATE OR REPLACE FUNCTION ae.settle_v1(
    ids uuid[], tokens uuid[], outcomes smallint[], results bytea[], errors text[], cancels text[], delays bigint[], slows bool[],
    spans text[], progresses text[], line_of int[], line_bytes int[], line_records text[]
) RETURNS TABLE (n int, after smallint, changed bool, type int, settled_at bigint) LANGUAGE plpgsql
SET jit = off SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    t bigint := ae.now_us();
    base bigint := ae.next_order(t);
    ended_now bigint;
BEGIN
    IF cardinality(line_of) > 0 THEN
        PERFORM ae.append_lines(ARRAY(
            SELECT r.id FROM ae.running r WHERE r.id = ANY (ids) AND r.token = tokens[array_position(ids, r.id)]
            ORDER BY r.id FOR UPDATE), ids, line_of, line_bytes, line_records);
    END IF;
    RETURN QUERY
    WITH gone AS (
        -- The scan of the primary key returns rows in the order of ids, so concurrent calls lock rows in one order and cannot deadlock.
        DELETE FROM ae.running r WHERE r.id = ANY (ids) AND r.token = tokens[array_position(ids, r.id)]
        RETURNING r.*, array_position(ids, r.id) AS n),
    x AS MATERIALIZED (
        SELECT g.*, greatest(t, g.updated_at) AS at, outcomes[g.n] AS outcome, cancels[least(g.n, cardinality(cancels))] AS cancel_error,
            CASE WHEN outcomes[g.n] = 0 THEN 3
                WHEN g.cancel_at IS NOT NULL OR outcomes[g.n] = 3 THEN 5
                WHEN outcomes[g.n] = 1 THEN 1
                WHEN outcomes[g.n] = 2 THEN 4
                WHEN outcomes[g.n] = 5 AND g.losses >= (SELECT j.max_losses FROM ae.jobs j WHERE j.id = g.id) THEN 4
                ELSE 0 END::smallint AS after
        FROM gone g),
    a AS MATERIALIZED (
        SELECT x.*, CASE WHEN x.after = 5 THEN 3 ELSE x.outcome END::smallint AS recorded,
            CASE WHEN x.after = 3 THEN NULL WHEN x.after = 5 AND x.cancel_at IS NOT NULL THEN x.cancel_error ELSE errors[x.n] END AS own_error,
            CASE WHEN x.outcome = 5 THEN NULL ELSE x.token END AS kept_token,
            CASE WHEN x.outcome = 5 THEN NULL ELSE x.after END AS kept_settled,
            coalesce(progresses[x.n], x.progress) AS new_progress,
            CASE WHEN progresses[x.n] IS NULL THEN x.progress_at ELSE x.at END AS new_progress_at,
            greatest(t - x.started_at, 0) AS ran
        FROM x),
    e AS (
        INSERT INTO ae.ended (id, ord, ended_at, expires_at, due, started_at, cancel_at, progress_at, type, version, attempt, retries,
            losses, releases, status, settled, last_settled, worker, token, last_token, progress, error, result)
        SELECT a.id, base + a.n - 1, a.at, a.at + a.retention, a.due, a.started_at, a.cancel_at, a.new_progress_at, a.type, a.version + 1,
            a.attempt, a.retries, a.losses + (a.outcome = 5)::int, a.releases, a.after, a.kept_settled, a.last_settled, a.worker,
            a.kept_token, a.last_token, a.new_progress, CASE WHEN a.after = 3 THEN NULL ELSE coalesce(a.own_error, a.error) END,
            CASE WHEN a.after = 3 THEN results[a.n] END
        FROM a WHERE a.after >= 3),
    q AS (
        INSERT INTO ae.ready (id, ord, since, entered_at, due, started_at, type, bytes, version, attempt, retries, losses, releases,
            log_lines, log_bytes, rank, settled, last_settled, worker, token, last_token, progress_at, progress, span, error)
        SELECT a.id, a.ord, a.at, a.at, a.due, a.started_at, a.type, a.bytes, a.version + 1, a.attempt, a.retries,
            a.losses + (a.outcome = 5)::int, a.releases + (a.recorded = 4)::int, a.log_lines, a.log_bytes, a.rank, a.kept_settled,
            a.last_settled, a.worker, a.kept_token, a.last_token, a.new_progress_at, a.new_progress, spans[a.n],
            coalesce(a.own_error, a.error)
        FROM a WHERE a.after = 0),
    s AS (
        INSERT INTO ae.scheduled (id, ord, since, entered_at, due, started_at, type, bytes, version, attempt, retries, losses,
            releases, log_lines, log_bytes, rank, settled, last_settled, worker, token, last_token, progress_at, progress, span, error)
        SELECT a.id, a.ord, a.at + delays[a.n], a.at, a.at + delays[a.n], a.started_at, a.type, a.bytes, a.version + 1, a.attempt, a.retries + 1,
            a.losses, a.releases, a.log_lines, a.log_bytes, a.rank, a.kept_settled, a.last_settled, a.worker, a.kept_token,
            a.last_token, a.new_progress_at, a.new_progress, spans[a.n], coalesce(a.own_error, a.error)
        FROM a WHERE a.after = 1),
    h AS (
        INSERT INTO ae.attempts (id, attempt, started_at, ended_at, outcome, worker, error)
        SELECT a.id, a.attempt, a.started_at, a.at, a.recorded, a.worker, a.own_error FROM a WHERE a.after <> 3),
    -- A completed job cannot run again. A small payload is part of its row, which is not worth writing again.
    p AS (UPDATE ae.jobs SET payload = '' WHERE id = ANY (ARRAY(SELECT a.id FROM a WHERE a.after = 3 AND a.bytes > 2000))),
    old AS (
        DELETE FROM ae.attempts o WHERE o.id = ANY (ARRAY(SELECT a.id FROM a WHERE a.attempt > 20))
            AND o.attempt <= (SELECT a.attempt - 20 FROM a WHERE a.id = o.id)),
    d AS (
        INSERT INTO ae.deltas (at, type, codes, vals)
        SELECT t, y.type, array_agg(y.code), array_agg(y.v) FROM (
            SELECT x.type, x.code, sum(x.v)::bigint AS v FROM (
                SELECT a.type,
                    unnest(ARRAY[2, a.after, 30 + a.recorded, 37 + a.after, 43, 45, 2000 + ae.bucket(a.ran)]::smallint[]) AS code,
                    unnest(ARRAY[-1, 1, 1, (a.after >= 3)::int, slows[a.n]::int, a.ran * (a.outcome <> 5)::int, (a.outcome <> 5)::int]) AS v
                FROM a) x
            WHERE x.v <> 0 GROUP BY 1, 2) y
        GROUP BY y.type)
    SELECT a.n, a.after, true, a.type, a.at FROM a;
    GET DIAGNOSTICS ended_now = ROW_COUNT;

    -- Repeats by the current or the last lease. A new statement, so that it sees what it waited for.
    IF ended_now < cardinality(ids) THEN
        RETURN QUERY
        SELECT u.n::int, CASE WHEN s.token = u.token THEN s.settled ELSE s.last_settled END, false, s.type, NULL::bigint
        FROM unnest(ids, tokens) WITH ORDINALITY AS u(id, token, n) JOIN ae.states_v1 s ON s.id = u.id
        WHERE s.id = ANY (ids)
          AND (s.token = u.token AND s.settled IS NOT NULL OR s.last_token = u.token AND s.last_settled IS NOT NULL);
    END IF;
END $$;

-- Appends log lines to running jobs that the caller has locked: `held`. `line_of` is the place of a line's job in `ids`. Beyond
-- 1 MiB, lines of the oldest attempt are deleted, but never those of the running one.
CREATE OR REPLACE FUNCTION ae.append_lines(held uuid[], ids uuid[], line_of int[], line_bytes int[], line_records text[])
RETURNS void LANGUAGE plpgsql SET jit = off SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    full_job record; oldest int; freed bigint;
BEGIN
    INSERT INTO ae.logs (id, line, attempt, bytes, record)
    SELECT r.id, coalesce(r.log_lines, 0) + row_number() OVER (PARTITION BY r.id ORDER BY u.n), r.attempt, u.bytes, u.record
    FROM unnest(line_of, line_bytes, line_records) WITH ORDINALITY AS u(of, bytes, record, n) JOIN ae.running r ON r.id = ids[u.of]
    WHERE r.id = ANY (held);
    UPDATE ae.running r SET log_lines = coalesce(r.log_lines, 0) + x.lines, log_bytes = coalesce(r.log_bytes, 0) + x.bytes
    FROM (SELECT ids[u.of] AS id, count(*) AS lines, sum(u.bytes) AS bytes FROM unnest(line_of, line_bytes) AS u(of, bytes) GROUP BY 1) x
    WHERE r.id = x.id AND r.id = ANY (held);
    FOR full_job IN SELECT r.id, r.attempt, r.log_bytes AS bytes FROM ae.running r WHERE r.id = ANY (held) AND r.log_bytes > 1048576 LOOP
        freed := 0;
        WHILE full_job.bytes - freed > 1048576 LOOP
            oldest := (SELECT l.attempt FROM ae.logs l WHERE l.id = full_job.id ORDER BY l.line LIMIT 1);
            EXIT WHEN oldest IS NULL OR oldest = full_job.attempt;
            WITH gone AS (DELETE FROM ae.logs l WHERE l.id = full_job.id AND l.attempt = oldest RETURNING l.bytes)
            SELECT freed + sum(gone.bytes) INTO freed FROM gone;
        END LOOP;
        UPDATE ae.running r SET log_bytes = r.log_bytes - freed WHERE r.id = full_job.id;
    END LOOP;
END $$;

-- Stores progress and log lines of running attempts of distinct jobs. Returns the jobs whose lease is current, and whether a
-- reader sees a change.
CREATE OR REPLACE FUNCTION ae.report_v1(
    ids uuid[], tokens uuid[], progresses text[], line_of int[], line_bytes int[], line_records text[]
) RETURNS TABLE (n int, changed bool) LANGUAGE plpgsql SET jit = off SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    t bigint := ae.now_us();
    held uuid[] := ARRAY(
        SELECT r.id FROM ae.running r WHERE r.id = ANY (ids) AND r.token = tokens[array_position(ids, r.id)] ORDER BY r.id FOR UPDATE);
BEGIN
    IF cardinality(line_of) > 0 THEN
        PERFORM ae.append_lines(held, ids, line_of, line_bytes, line_records);
    END IF;
    UPDATE ae.running r SET progress = progresses[array_position(ids, r.id)], progress_at = greatest(t, r.updated_at),
        updated_at = greatest(t, r.updated_at), version = r.version + 1
    WHERE r.id = ANY (held) AND progresses[array_position(ids, r.id)] IS NOT NULL;
    RETURN QUERY SELECT array_position(ids, h.id), progresses[array_position(ids, h.id)] IS NOT NULL FROM unnest(held) AS h(id);
END $$;

-- Records a worker's heartbeat, or deletes it if `ttl` is 0. Renews leases: returns the held ones, and whether the cancellation of
-- their job is requested.
CREATE OR REPLACE FUNCTION ae.renew_v1(of_worker uuid, heartbeat text, ttl bigint, ids uuid[], tokens uuid[], lease bigint)
RETURNS TABLE (id uuid, token uuid, cancel bool) LANGUAGE plpgsql SET jit = off SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    t bigint := ae.now_us();
    held uuid[];
BEGIN
    IF ttl > 0 THEN
        INSERT INTO ae.heartbeats AS h (worker, at, until, record) VALUES (of_worker, t, t + ttl, heartbeat)
        ON CONFLICT (worker) DO UPDATE SET at = excluded.at, until = excluded.until, record = excluded.record;
    ELSE
        DELETE FROM ae.heartbeats h WHERE h.worker = of_worker;
    END IF;
    IF cardinality(ids) = 0 THEN
        RETURN;
    END IF;
    held := ARRAY(
        SELECT r.id FROM ae.running r WHERE r.id = ANY (ids) AND (r.id, r.token) IN (SELECT u.id, u.token FROM unnest(ids, tokens) AS u(id, token))
        ORDER BY r.id FOR UPDATE);
    RETURN QUERY
    UPDATE ae.running r SET lease_until = t + lease WHERE r.id = ANY (held) RETURNING r.id, r.token, r.cancel_at IS NOT NULL;
END $$;
