-- Roles and documents, which processes share, and the probe.

-- Takes or keeps a role for `ttl`; 0 gives it up. Answers: 0 held (`token`), 1 another holds it (`rest` is for how long at most),
-- 2 not held. A time more than a day ahead was written while the clock was ahead, and counts as past.
CREATE OR REPLACE FUNCTION ae.role_v1(of_name text, by_holder uuid, ttl bigint, new_token uuid)
RETURNS TABLE (answer smallint, token uuid, rest bigint) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    t bigint; was ae.roles; is_held bool;
BEGIN
    LOOP
        IF ttl > 0 THEN
            INSERT INTO ae.roles (name, holder, token, until) VALUES (of_name, by_holder, new_token, 0) ON CONFLICT DO NOTHING;
        END IF;
        SELECT * INTO was FROM ae.roles r WHERE r.name = of_name FOR UPDATE;
        -- The holder may have given it up meanwhile.
        EXIT WHEN FOUND OR ttl = 0;
    END LOOP;
    t := ae.now_us();
    is_held := t < was.until AND was.until <= t + 86400000000;
    IF is_held AND was.holder <> by_holder THEN
        RETURN QUERY SELECT CASE WHEN ttl = 0 THEN 2 ELSE 1 END::smallint, NULL::uuid, was.until - t;
    ELSIF ttl = 0 THEN
        DELETE FROM ae.roles r WHERE r.name = of_name;
        RETURN QUERY SELECT 2::smallint, NULL::uuid, NULL::bigint;
    ELSE
        UPDATE ae.roles r SET holder = by_holder, token = CASE WHEN is_held THEN r.token ELSE new_token END, until = t + ttl
            WHERE r.name = of_name;
        RETURN QUERY SELECT 0::smallint, CASE WHEN is_held THEN was.token ELSE new_token END, NULL::bigint;
    END IF;
END $$;

CREATE OR REPLACE FUNCTION ae.document_v1(of_name text) RETURNS TABLE (version uuid, bytes bytea) LANGUAGE sql STABLE AS
$$ SELECT d.version, d.bytes FROM ae.documents d WHERE d.name = of_name $$;

-- Writes a document if its version is `expected` (null: there is none), and if `role_token` holds `role_name` (null: no role guards it).
-- Answers: 0 written, 1 another version, 2 the role is not held.
CREATE OR REPLACE FUNCTION ae.put_document_v1(
    of_name text, expected uuid, new_version uuid, content bytea, role_name text, role_token uuid
) RETURNS smallint LANGUAGE plpgsql AS $$
DECLARE
    t bigint;
BEGIN
    IF role_name IS NOT NULL THEN
        PERFORM 1 FROM ae.roles r WHERE r.name = role_name FOR SHARE;
        t := ae.now_us();
        PERFORM 1 FROM ae.roles r WHERE r.name = role_name AND r.token = role_token AND r.until > t AND r.until <= t + 86400000000;
        IF NOT FOUND THEN
            RETURN 2;
        END IF;
    END IF;
    IF expected IS NULL THEN
        INSERT INTO ae.documents (name, version, bytes) VALUES (of_name, new_version, content) ON CONFLICT DO NOTHING;
    ELSE
        UPDATE ae.documents d SET version = new_version, bytes = content WHERE d.name = of_name AND d.version = expected;
    END IF;
    RETURN CASE WHEN FOUND THEN 0 ELSE 1 END;
END $$;

-- Writes a row and leaves it as it was.
CREATE OR REPLACE FUNCTION ae.probe_v1() RETURNS void LANGUAGE sql AS
$$ UPDATE ae.marks SET at = at WHERE name = 'probe' $$;
