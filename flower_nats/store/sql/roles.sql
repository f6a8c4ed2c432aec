-- lock_roles: Let one process at a time change the roles.
SELECT pg_advisory_xact_lock(7310972232);

-- let_this_be_role: Name the role that `hand_over` is about.
SELECT set_config('flower_nats.role', %(name)s, true);

-- find_role: Whether a role exists.
SELECT 1 FROM pg_roles WHERE rolname = %(name)s;

-- hand_over: Make the role the owner of the schema and of all in it.
DO $$
DECLARE
    owner text := current_setting('flower_nats.role');
    statement text;
BEGIN
    IF (SELECT nspowner <> owner::regrole FROM pg_namespace WHERE nspname = 'public') THEN
        EXECUTE format('ALTER SCHEMA public OWNER TO %I', owner);
    END IF;
    FOR statement IN
        -- Sequences of identity columns, and indexes, belong to their tables.
        SELECT format('ALTER TABLE %s OWNER TO %I', oid::regclass, owner)
        FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'm')
            AND relowner <> owner::regrole
        UNION ALL
        SELECT format('ALTER ROUTINE %s OWNER TO %I', oid::regprocedure, owner)
        FROM pg_proc
        WHERE pronamespace = 'public'::regnamespace AND proowner <> owner::regrole
    LOOP
        EXECUTE statement;
    END LOOP;
END $$;
