-- Creates a job inside a transaction of the application: enqueue_v1.

-- A new id: a UUID of version 7.
CREATE OR REPLACE FUNCTION ae.new_id() RETURNS uuid LANGUAGE sql VOLATILE AS $$
    SELECT (lpad(to_hex(ae.now_us() / 1000), 12, '0') || '7' || substr(r, 14))::uuid
    FROM replace(gen_random_uuid()::text, '-', '') AS r
$$;

-- Creates a job, or finds the one of the same key or id. The job exists if and only if the transaction commits.
--
-- `head` is a JSON object. `name` is the job type, and all else is optional: `v` (1), `id`, `chosen`, `priority`, `maxRetries`,
-- `maxLosses`, `retentionSeconds`, `delaySeconds`, `queueLimit`, `key`, `fingerprint` and `owner` (64 hexadecimal digits),
-- `ownerLabel`, `traceparent`, `tracestate`, `wake`. `payload` is `{"v":1,"body":…}` with the request as `body`.
--
-- Answers with a JSON object: `outcome` is `accepted` or `existing`, and `id` is the id of the job, of the earlier one if it is
-- `existing`. Without a job it ends with an error, so that no transaction commits without its job by mistake: 23505 if the key or the
-- id belongs to another request, 53400 if the queue is full.
--
-- Waits for another open transaction that uses the same key or id, and ends with the error 40001 in an isolation level that
-- does not see the other's commit. With `wake`, which is the default, the commit notifies workers.
CREATE OR REPLACE FUNCTION ae.enqueue_v1(head text, payload bytea) RETURNS text LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    h jsonb := head::jsonb;
    job_name text := h->>'name';
    job_id uuid := coalesce((h->>'id')::uuid, ae.new_id());
    job_key text := h->>'key';
    job_owner bytea := decode(h->>'owner', 'hex');
    digest bytea := coalesce(decode(h->>'fingerprint', 'hex'), sha256(convert_to(h->>'name', 'UTF8') || payload));
    delay bigint := greatest(coalesce((h->>'delaySeconds')::numeric * 1000000, 0), 0)::bigint;
    parent text := h->>'traceparent';
    of_type int;
    found record;
BEGIN
    IF coalesce((h->>'v')::int, 1) <> 1 THEN
        RAISE EXCEPTION 'unsupported version % of a job: expected 1', h->>'v' USING ERRCODE = '22023';
    END IF;
    IF job_name IS NULL OR job_name !~ '^[A-Za-z0-9._-]{1,100}$' THEN
        RAISE EXCEPTION 'invalid job name %: expected 1 to 100 characters from A-Z a-z 0-9 . _ -', job_name USING ERRCODE = '22023';
    END IF;
    IF job_key !~ '^[!-~]{1,255}$' THEN
        RAISE EXCEPTION 'invalid key %: expected 1 to 255 visible ASCII characters', job_key USING ERRCODE = '22023';
    END IF;
    IF payload IS NULL OR length(payload) = 0 OR get_byte(payload, 0) <> ascii('{') THEN
        RAISE EXCEPTION 'invalid payload: expected {"v":1,"body":...}' USING ERRCODE = '22023';
    END IF;
    IF least((h->>'maxRetries')::bigint, (h->>'maxLosses')::bigint, (h->>'retentionSeconds')::numeric) < 0 THEN
        RAISE EXCEPTION 'invalid maxRetries, maxLosses or retentionSeconds: expected 0 or more' USING ERRCODE = '22023';
    END IF;
    -- Callers pass on the header of a request, which may be of another version or no traceparent at all.
    IF parent !~ '^00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$' THEN
        parent := NULL;
    END IF;
    of_type := ae.type_v1(job_name);
    -- Without the type's lock, which would make all submitters wait for the end of the application's transaction.
    IF h->>'queueLimit' IS NOT NULL AND (ae.waiting(of_type)).jobs >= (h->>'queueLimit')::bigint
        AND NOT EXISTS (SELECT 1 FROM ae.jobs j WHERE j.id = job_id)
        AND NOT EXISTS (SELECT 1 FROM ae.tombs o WHERE o.id = job_id)
        AND NOT EXISTS (SELECT 1 FROM ae.keys k WHERE k.type = of_type AND k.key = job_key AND k.owner = coalesce(job_owner, ''))
    THEN
        RAISE EXCEPTION 'the queue of % is full: % jobs wait', job_name, h->>'queueLimit' USING ERRCODE = '53400';
    END IF;
    SELECT i.answer, i.other INTO found FROM ae.insert_v1(
        ARRAY[job_id], ARRAY[of_type], ARRAY[coalesce((h->>'priority')::smallint, 4)]::smallint[], ARRAY[payload], ARRAY[digest],
        ARRAY[job_owner], ARRAY[h->>'ownerLabel'], ARRAY[job_key],
        ARRAY[job_key IS NOT NULL OR coalesce((h->>'chosen')::bool, h ? 'id')], ARRAY[delay], NULL,
        ARRAY[(coalesce((h->>'retentionSeconds')::numeric, 86400) * 1000000)::bigint],
        ARRAY[coalesce((h->>'maxRetries')::bigint, 3)], ARRAY[coalesce((h->>'maxLosses')::bigint, 5)],
        ARRAY[parent], ARRAY[h->>'tracestate'], NULL, NULL,
        -- The number of jobs ahead is not needed.
        ARRAY[10 * of_type::bigint + coalesce((h->>'priority')::smallint, 4)], true) i;
    IF found.answer NOT IN (0, 1) THEN
        RAISE EXCEPTION 'the % belongs to another request', CASE WHEN job_key IS NULL THEN 'id' ELSE 'key or the id' END
            USING ERRCODE = '23505';
    END IF;
    IF found.answer = 0 AND delay = 0 AND coalesce((h->>'wake')::bool, true) THEN
        PERFORM pg_notify(replace('ae.hints', '.', '_'), 'w sql ' || job_name);
    END IF;
    RETURN json_build_object('v', 1,
        'outcome', CASE found.answer WHEN 0 THEN 'accepted' ELSE 'existing' END,
        'id', CASE found.answer WHEN 0 THEN job_id ELSE found.other END)::text;
END $$;

REVOKE ALL ON FUNCTION ae.enqueue_v1(text, bytea) FROM PUBLIC;
