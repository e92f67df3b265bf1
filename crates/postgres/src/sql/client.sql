-- Calls of clients and operators: cancel_v1 and retry_v1, and the quarantine of jobs that cannot be read.

-- Cancels a waiting job, or requests the cancellation of a running one. Answers: 0 canceled, 1 requested, 2 ended before,
-- 3 unknown; `type` and whether anything changed.
CREATE OR REPLACE FUNCTION ae.cancel_v1(of_id uuid, why text) RETURNS TABLE (answer smallint, type int, changed bool) LANGUAGE plpgsql
SET jit = off SET enable_seqscan = off SET enable_bitmapscan = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    t bigint; job record; was ae.ready; from_status int;
BEGIN
    -- Each statement sees what the one before waited for. A job that moves meanwhile is looked for again.
    FOR attempt IN 1..100 LOOP
        t := ae.now_us();
        SELECT j.type, j.prio, j.ord, j.due, j.retention INTO job FROM ae.jobs j WHERE j.id = of_id;
        IF NOT FOUND THEN
            RETURN QUERY SELECT 3::smallint, NULL::int, false;
            RETURN;
        END IF;
        UPDATE ae.running r SET cancel_at = greatest(t, r.updated_at), updated_at = greatest(t, r.updated_at), version = r.version + 1
            WHERE r.id = of_id AND r.cancel_at IS NULL;
        IF FOUND THEN
            RETURN QUERY SELECT 1::smallint, job.type, true;
            RETURN;
        END IF;
        IF EXISTS (SELECT 1 FROM ae.running r WHERE r.id = of_id) THEN
            RETURN QUERY SELECT 1::smallint, job.type, false;
            RETURN;
        END IF;
        IF EXISTS (SELECT 1 FROM ae.ended e WHERE e.id = of_id) THEN
            RETURN QUERY SELECT 2::smallint, job.type, false;
            RETURN;
        END IF;
        from_status := 0;
        DELETE FROM ae.ready r WHERE r.type = job.type AND r.rank = (9 - job.prio)::smallint AND r.ord = job.ord AND r.id = of_id RETURNING * INTO was;
        IF NOT FOUND THEN
            DELETE FROM ae.ready r WHERE r.id = of_id AND r.version > 1 RETURNING * INTO was;
        END IF;
        IF NOT FOUND THEN
            from_status := 1;
            DELETE FROM ae.scheduled r WHERE r.type = job.type AND r.due = job.due AND r.id = of_id RETURNING * INTO was;
        END IF;
        IF NOT FOUND THEN
            DELETE FROM ae.scheduled r WHERE r.id = of_id AND r.version > 1 RETURNING * INTO was;
        END IF;
        IF FOUND THEN
            INSERT INTO ae.ended (id, ord, ended_at, expires_at, due, started_at, progress_at, type, version, attempt, retries, losses,
                releases, status, settled, last_settled, worker, token, last_token, progress, error)
            VALUES (of_id, ae.next_order(t), t, t + job.retention, was.due, was.started_at, was.progress_at, was.type, was.version + 1,
                was.attempt, was.retries, was.losses, was.releases, 5, was.settled, was.last_settled, was.worker, was.token,
                was.last_token, was.progress, why);
            INSERT INTO ae.deltas (at, type, codes, vals) VALUES (t, was.type,
                ARRAY[from_status, 5, 42, 6]::smallint[], ARRAY[-1, 1, 1, CASE WHEN from_status = 1 AND was.attempt = 0 THEN -1 ELSE 0 END]);
            RETURN QUERY SELECT 0::smallint, was.type, true;
            RETURN;
        END IF;
    END LOOP;
    RAISE EXCEPTION 'job % has no state', of_id USING ERRCODE = 'data_corrupted';
END $$;

-- Makes a job from a failed or canceled one. Answers: 0 created, 1 retried before (`other` is that job), 2 the new id is taken,
-- 3 not failed or canceled, expired, or unknown.
CREATE OR REPLACE FUNCTION ae.retry_v1(of_id uuid, new_id uuid, parent text, state text)
RETURNS TABLE (answer smallint, type int, other uuid) LANGUAGE plpgsql
SET jit = off SET enable_seqscan = off SET enable_bitmapscan = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    t bigint := ae.now_us();
    old record; made ae.jobs;
BEGIN
    SELECT e.* INTO old FROM ae.ended e WHERE e.id = of_id AND e.expires_at > t FOR UPDATE;
    IF NOT FOUND OR old.retried_by IS NULL AND old.status = 3 THEN
        RETURN QUERY SELECT 3::smallint, NULL::int, NULL::uuid;
        RETURN;
    END IF;
    IF old.retried_by IS NOT NULL THEN
        RETURN QUERY SELECT 1::smallint, old.type, old.retried_by;
        RETURN;
    END IF;
    IF NOT EXISTS (SELECT 1 FROM ae.tombs o WHERE o.id = new_id) THEN
        INSERT INTO ae.jobs (id, ord, created_at, retention, max_retries, max_losses, type, bytes, prio, repeatable, fingerprint, owner,
            owner_label, traceparent, tracestate, retry_of, payload)
        SELECT new_id, ae.next_order(t), t, j.retention, j.max_retries, j.max_losses, j.type, j.bytes, j.prio, false, j.fingerprint,
            j.owner, j.owner_label, parent, state, of_id, j.payload
        FROM ae.jobs j WHERE j.id = of_id ON CONFLICT DO NOTHING RETURNING * INTO made;
    END IF;
    IF made.id IS NULL THEN
        RETURN QUERY SELECT 2::smallint, old.type, NULL::uuid;
        RETURN;
    END IF;
    INSERT INTO ae.ready (id, ord, since, entered_at, type, bytes, rank) VALUES (new_id, made.ord, t, t, made.type, made.bytes, 9 - made.prio);
    INSERT INTO ae.deltas (at, type, codes, vals) VALUES (t, made.type, ARRAY[0, 20]::smallint[], ARRAY[1, 1]);
    UPDATE ae.ended e SET retried_by = new_id, version = e.version + 1 WHERE e.id = of_id;
    RETURN QUERY SELECT 0::smallint, made.type, new_id;
END $$;

-- Removes a running job that cannot be read from its state and from all counts, if this lease runs it.
CREATE OR REPLACE FUNCTION ae.quarantine_v1(of_id uuid, lease_token uuid, why text) RETURNS bool LANGUAGE plpgsql AS $$
DECLARE
    t bigint := ae.now_us();
    was ae.running;
BEGIN
    DELETE FROM ae.running r WHERE r.id = of_id AND r.token = lease_token RETURNING * INTO was;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    INSERT INTO ae.quarantine (id, at, status, reason, row) VALUES (of_id, t, 2, why, row_to_json(was)::text);
    INSERT INTO ae.deltas (at, type, codes, vals) VALUES (t, was.type, ARRAY[2]::smallint[], ARRAY[-1]);
    RETURN true;
END $$;
