-- Accepts jobs: insert_v1 for a batch of submissions, and what it needs.

-- Returns the number of a type, which is made if it is new.
CREATE OR REPLACE FUNCTION ae.type_v1(wanted text) RETURNS int LANGUAGE plpgsql AS $$
DECLARE found_type int;
BEGIN
    SELECT t.type INTO found_type FROM ae.types t WHERE t.name = wanted;
    IF found_type IS NULL THEN
        INSERT INTO ae.types (name) VALUES (wanted) ON CONFLICT DO NOTHING;
        SELECT t.type INTO found_type FROM ae.types t WHERE t.name = wanted;
    END IF;
    RETURN found_type;
END $$;

-- The types of these names. A worker calls it before it claims, so that no submission has to make a type. Does not wait for an open
-- transaction that makes one.
CREATE OR REPLACE FUNCTION ae.types_v1(wanted text[]) RETURNS TABLE (type int, name text) LANGUAGE plpgsql
SET lock_timeout = '20ms' AS $$
BEGIN
    BEGIN
        INSERT INTO ae.types (name)
        SELECT w.name FROM unnest(wanted) AS w(name) WHERE NOT EXISTS (SELECT 1 FROM ae.types t WHERE t.name = w.name) ORDER BY 1
        ON CONFLICT DO NOTHING;
    EXCEPTION WHEN lock_not_available THEN
        NULL;
    END;
    RETURN QUERY SELECT t.type, t.name FROM ae.types t WHERE t.name = ANY (wanted);
END $$;

-- The number that a queue limit compares: Queued jobs, and Scheduled ones that never started. Also the number of changes since a
-- time that are not folded into the counts.
CREATE OR REPLACE FUNCTION ae.waiting(of_type int, OUT jobs bigint, OUT changes bigint, OUT since bigint) LANGUAGE plpgsql
SET jit = off SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    since := (SELECT least(m.at, ae.now_us()) - 5000000 FROM ae.marks m WHERE m.name = 'fold');
    -- One statement, since a fold moves changes into the counts meanwhile.
    SELECT coalesce(sum(x.n), 0), count(DISTINCT x.place) INTO jobs, changes FROM (
        SELECT c.n, NULL::tid AS place FROM ae.counts c WHERE c.type = of_type AND c.code IN (0, 6)
        UNION ALL
        SELECT u.v, d.ctid FROM ae.deltas d, unnest(d.codes, d.vals) AS u(code, v)
        WHERE d.type = of_type AND d.at >= since AND u.code IN (0, 6)) x;
END $$;

-- The number of queued jobs of a type before a position, at most 1000. A job that was never anything else, below its lane's bound,
-- is not counted. The higher of the stored bound and the caller's counts. `bounds` may be null.
CREATE OR REPLACE FUNCTION ae.ahead(of_type int, of_rank smallint, of_ord bigint, of_id uuid, bounds bigint[]) RETURNS bigint LANGUAGE plpgsql STABLE
SET jit = off SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    stored bigint[] := (SELECT l.froms FROM ae.lanes l WHERE l.type = of_type);
    froms bigint[] := ARRAY(SELECT greatest(b.stored, b.own, 0) FROM unnest(stored, bounds) AS b(stored, own));
BEGIN
    RETURN (SELECT count(*) FROM (
        SELECT 1 FROM ae.ready r
        WHERE r.type = of_type AND r.rank = of_rank AND r.ord >= coalesce(froms[of_rank + 1], 0) AND (r.ord, r.id) < (of_ord, of_id)
            AND r.version = 1
        UNION ALL
        SELECT 1 FROM generate_series(0, of_rank - 1) rk CROSS JOIN LATERAL (
            SELECT 1 FROM ae.ready r
            WHERE r.type = of_type AND r.rank = rk::smallint AND r.ord >= coalesce(froms[rk + 1], 0) AND r.version = 1 LIMIT 1000) x
        UNION ALL
        SELECT 1 FROM ae.ready r WHERE r.type = of_type AND (r.rank, r.ord, r.id) < (of_rank, of_ord, of_id) AND r.version > 1
        LIMIT 1000) x);
END $$;

-- Accepts at most 64 jobs of distinct ids, in the order of the arrays. `limits` has null for a job whose queue limit needs no
-- check, and `delays` has microseconds, 0 for none. `limits`, `owners`, `labels`, `keys`, `parents` and `states` may be null instead of
-- an array of nulls. `bounds` has ten lower bounds for each type of `bounded`, as in `claim_v1`. `long` lists lanes, as ten times the
-- type plus the priority: their waiting jobs are not counted, and 1000 are assumed.
--
-- Answers, one row for each job: 0 accepted, 1 existing (`other` is its id), 2 conflict, 3 the queue is full. Further rows have
-- the answer 4: `n` is a type whose limit was checked, and `ahead` the number of its waiting jobs before the call.
-- Checks the key, then the limit, then the id. Waits for another open transaction that takes the same key or id: as long as any
-- statement if `patient`, else 100 ms.
CREATE OR REPLACE FUNCTION ae.insert_v1(
    ids uuid[], types int[], prios smallint[], payloads bytea[], fingerprints bytea[], owners bytea[], labels text[], keys text[],
    repeatables bool[], delays bigint[], limits bigint[], retentions bigint[], retries bigint[], losses bigint[],
    parents text[], states text[], bounded int[], bounds bigint[], long bigint[], patient bool
) RETURNS TABLE (n int, answer smallint, now bigint, ahead bigint, other uuid) LANGUAGE plpgsql
SET jit = off SET enable_seqscan = off SET enable_bitmapscan = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    t bigint := ae.now_us();
    base bigint := ae.next_order(t);
    usual_wait text := current_setting('lock_timeout');
    wait text := CASE WHEN patient THEN usual_wait ELSE '100ms' END;
    refused uuid[] := '{}';     -- the queue is full
    known uuid[] := '{}';       -- the key is known
    accepted uuid[]; new_jobs int;
    of_type int; waiting record;
BEGIN
    PERFORM set_config('lock_timeout', wait, true);
    IF keys IS NOT NULL THEN
        WITH i AS MATERIALIZED (
            SELECT * FROM unnest(ids, types, keys, owners) AS u(id, ty, key, owner) WHERE key IS NOT NULL),
        k AS (
            INSERT INTO ae.keys (type, key, owner, id)
            SELECT i.ty, i.key, coalesce(i.owner, ''), i.id FROM i ORDER BY 1, 2, 3 ON CONFLICT DO NOTHING RETURNING id)
        SELECT coalesce(array_agg(i.id), '{}') INTO known FROM i WHERE i.id NOT IN (SELECT k.id FROM k);
    END IF;
    IF limits IS NOT NULL THEN
        -- No transaction of an application holds the lock of a type.
        PERFORM set_config('lock_timeout', usual_wait, true);
        FOR of_type IN SELECT DISTINCT u.ty FROM unnest(types, limits) AS u(ty, l) WHERE u.l IS NOT NULL ORDER BY 1 LOOP
            PERFORM pg_advisory_xact_lock(hashtext('ae.types'), of_type);
            waiting := ae.waiting(of_type);
            IF waiting.changes > 64 THEN
                PERFORM ae.fold_type(of_type, waiting.since);
            END IF;
            refused := refused || ae.beyond_limit(of_type, waiting.jobs, ids, types, limits, known);
            RETURN QUERY SELECT of_type, 4::smallint, t, waiting.jobs, NULL::uuid;
        END LOOP;
        IF cardinality(refused) > 0 AND cardinality(known) > 0 THEN
            refused := refused || ae.sharing_keys(refused, known, ids, types, keys, owners);
        END IF;
        PERFORM set_config('lock_timeout', wait, true);
    END IF;
    RETURN QUERY
    WITH j AS (
        INSERT INTO ae.jobs (id, ord, created_at, retention, due, max_retries, max_losses, type, bytes, prio, repeatable, fingerprint,
            owner, owner_label, key, traceparent, tracestate, payload)
        SELECT i.id, base + i.n - 1, t, retentions[i.n], CASE WHEN delays[i.n] > 0 THEN t + delays[i.n] END, retries[i.n], losses[i.n],
            i.ty, length(payloads[i.n]), prios[i.n], repeatables[i.n], fingerprints[i.n], owners[i.n], labels[i.n], keys[i.n],
            parents[i.n], states[i.n], payloads[i.n]
        FROM unnest(ids, types) WITH ORDINALITY AS i(id, ty, n)
        WHERE NOT i.id = ANY (refused) AND NOT i.id = ANY (known) AND (SELECT true FROM ae.tombs o WHERE o.id = i.id) IS NULL
        ORDER BY i.id ON CONFLICT DO NOTHING
        RETURNING id, ord, due, type, bytes, prio),
    q AS (
        INSERT INTO ae.ready (id, ord, since, entered_at, type, bytes, rank)
        SELECT j.id, j.ord, t, t, j.type, j.bytes, 9 - j.prio FROM j WHERE j.due IS NULL),
    s AS (
        INSERT INTO ae.scheduled (id, ord, since, entered_at, due, type, bytes, rank)
        SELECT j.id, j.ord, j.due, t, j.due, j.type, j.bytes, 9 - j.prio FROM j WHERE j.due IS NOT NULL),
    d AS (
        INSERT INTO ae.deltas (at, type, codes, vals)
        SELECT t, j.type, ARRAY[0, 1, 6, 20]::smallint[], ARRAY[count(*) - count(j.due), count(j.due), count(j.due), count(*)]
        FROM j GROUP BY j.type),
    -- The jobs ahead of the first of each lane. Jobs of a higher priority in the same call are not counted.
    b AS MATERIALIZED (
        SELECT x.type, x.prio, CASE WHEN 10 * x.type::bigint + x.prio = ANY (long) THEN 1000
            ELSE ae.ahead(x.type, (9 - x.prio)::smallint, base, '00000000-0000-0000-0000-000000000000', bounds[10 * x.place - 9:10 * x.place])
            END AS before
        FROM (SELECT DISTINCT j.type, j.prio, array_position(bounded, j.type) AS place FROM j WHERE j.due IS NULL) x)
    SELECT (j.ord - base + 1)::int, 0::smallint, t, CASE WHEN j.due IS NULL THEN
        b.before + row_number() OVER (PARTITION BY j.type, j.prio, j.due IS NULL ORDER BY j.ord) - 1 END, NULL::uuid
    FROM j LEFT JOIN b ON b.type = j.type AND b.prio = j.prio;
    GET DIAGNOSTICS new_jobs = ROW_COUNT;

    IF new_jobs < cardinality(ids) THEN
        accepted := ARRAY(SELECT i.id FROM unnest(ids) WITH ORDINALITY AS i(id, n)
            WHERE (SELECT j.ord FROM ae.jobs j WHERE j.id = i.id) = base + i.n - 1);
        RETURN QUERY SELECT * FROM ae.not_accepted(ids, types, keys, owners, fingerprints, accepted, known, refused, t);
    END IF;
END $$;

-- The jobs that a queue limit refuses: those that would be new, beyond the free places of their type.
CREATE OR REPLACE FUNCTION ae.beyond_limit(of_type int, waiting bigint, ids uuid[], types int[], limits bigint[], known uuid[])
RETURNS uuid[] LANGUAGE plpgsql SET jit = off SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    RETURN ARRAY(
        SELECT f.id FROM (
            SELECT i.id, i.l, row_number() OVER (ORDER BY i.n) AS place
            FROM unnest(ids, types, limits) WITH ORDINALITY AS i(id, ty, l, n)
            WHERE i.ty = of_type AND NOT i.id = ANY (known)
              AND (SELECT true FROM ae.jobs j WHERE j.id = i.id) IS NULL
              AND (SELECT true FROM ae.tombs o WHERE o.id = i.id) IS NULL) f
        WHERE waiting + f.place > f.l);
END $$;

-- The jobs of known keys whose keys refused jobs of the same call took.
CREATE OR REPLACE FUNCTION ae.sharing_keys(refused uuid[], known uuid[], ids uuid[], types int[], keys text[], owners bytea[])
RETURNS uuid[] LANGUAGE plpgsql SET jit = off SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    RETURN ARRAY(
        SELECT i.id FROM unnest(ids, types, keys, owners) AS i(id, ty, key, owner)
        WHERE i.id = ANY (known) AND (SELECT k.id FROM ae.keys k
            WHERE k.type = i.ty AND k.key = i.key AND k.owner = coalesce(i.owner, '')) = ANY (refused));
END $$;

-- The answers of `insert_v1` for jobs that it did not accept.
CREATE OR REPLACE FUNCTION ae.not_accepted(
    ids uuid[], types int[], keys text[], owners bytea[], fingerprints bytea[], accepted uuid[], known uuid[], refused uuid[], t bigint
) RETURNS TABLE (n int, answer smallint, now bigint, ahead bigint, other uuid) LANGUAGE plpgsql
SET jit = off SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
BEGIN
    -- A key whose job was not accepted, because its id is taken or the queue is full, stays free.
    DELETE FROM ae.keys x WHERE x.ctid = ANY (ARRAY(
        SELECT (SELECT k.ctid FROM ae.keys k WHERE k.type = i.ty AND k.key = i.key AND k.owner = coalesce(i.owner, '') AND k.id = i.id)
        FROM unnest(ids, types, keys, owners) AS i(id, ty, key, owner) WHERE NOT i.id = ANY (accepted || known)));
    RETURN QUERY
    SELECT i.n::int, CASE
            WHEN i.id = ANY (refused) THEN 3
            WHEN f.fingerprint = i.fingerprint AND f.owner IS NOT DISTINCT FROM i.owner AND (i.key IS NULL OR i.id = ANY (known)) THEN 1
            ELSE 2 END::smallint, t, NULL::bigint, f.id
    FROM unnest(ids, types, keys, owners, fingerprints) WITH ORDINALITY AS i(id, ty, key, owner, fingerprint, n)
    LEFT JOIN LATERAL (
        SELECT CASE WHEN i.id = ANY (known)
            THEN (SELECT k.id FROM ae.keys k WHERE k.type = i.ty AND k.key = i.key AND k.owner = coalesce(i.owner, ''))
            ELSE i.id END AS id) w ON true
    LEFT JOIN LATERAL (
        SELECT j.id, j.fingerprint, j.owner FROM ae.jobs j WHERE j.id = w.id
        UNION ALL SELECT o.id, o.fingerprint, o.owner FROM ae.tombs o WHERE o.id = w.id LIMIT 1) f ON true
    WHERE NOT i.id = ANY (accepted);
END $$;
