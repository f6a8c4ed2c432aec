-- begin: Store a command's login. If there are too many, the oldest unconfirmed login is dropped: of this address if it
-- has its share, else, if there are too many in all, of the address with the most.
WITH waiting AS (
    SELECT device_hash, asked_from, created_at FROM device_login
    WHERE expires_at > now() AND account_id IS NULL
), fullest AS (
    SELECT asked_from FROM waiting GROUP BY asked_from ORDER BY count(*) DESC LIMIT 1
), beyond_share AS (
    SELECT device_hash FROM waiting WHERE asked_from = %(asked_from)s
    ORDER BY created_at DESC
    OFFSET %(most_of_one)s - 1
), beyond_all AS (
    SELECT device_hash FROM waiting WHERE asked_from = (SELECT asked_from FROM fullest)
        AND (SELECT count(*) FROM waiting) >= %(most)s
    ORDER BY created_at
    LIMIT 1
), gone AS (
    DELETE FROM device_login
    WHERE device_hash IN (SELECT device_hash FROM beyond_share UNION SELECT device_hash FROM beyond_all)
)
INSERT INTO device_login (
    device_hash, user_code, asked_from, expires_at,
    issuer_secret, issuer_page, issuer_code
)
VALUES (
    %(device_hash)s, %(user_code)s, %(asked_from)s, now() + make_interval(secs => %(seconds)s),
    %(issuer_secret)s, %(issuer_page)s, %(issuer_code)s
)
ON CONFLICT DO NOTHING
RETURNING device_hash;

-- by_device: An open login, by its device code.
SELECT * FROM device_login WHERE device_hash = %(device_hash)s AND expires_at > now();

-- by_user_code: An open login, by its user code.
SELECT *, extract(epoch FROM now() - created_at)::double precision AS seconds_ago
FROM device_login
WHERE user_code = %(user_code)s AND expires_at > now();

-- confirm: Set the account of a login; none if it has one, or was refused.
UPDATE device_login SET account_id = %(account_id)s, issuer_secret = %(issuer_secret)s
WHERE device_hash = %(device_hash)s
    AND expires_at > now() AND refused_at IS NULL
    AND (account_id IS NULL OR account_id = %(account_id)s)
RETURNING device_hash;

-- refuse: Refuse a login that is not confirmed.
UPDATE device_login SET refused_at = now()
WHERE user_code = %(user_code)s AND account_id IS NULL AND expires_at > now();

-- issue: Note that tokens are given out for a login; none if that was too long ago for a repeated question.
UPDATE device_login SET issued_at = coalesce(issued_at, now())
WHERE device_hash = %(device_hash)s
    AND (issued_at IS NULL OR issued_at > now() - make_interval(secs => %(again_within)s))
RETURNING account_id;

-- claim_poll: Claim the next question to the issuer about a login; none if it was just asked.
UPDATE device_login SET poll_at = now() + make_interval(secs => %(seconds)s)
WHERE device_hash = %(device_hash)s AND (poll_at IS NULL OR poll_at <= now())
RETURNING device_hash;

-- postpone_poll: Postpone the next question to the issuer about a login.
UPDATE device_login SET poll_at = now() + make_interval(secs => %(seconds)s)
WHERE device_hash = %(device_hash)s;

-- drop_expired: Remove ended logins.
DELETE FROM device_login WHERE expires_at < now();

-- attempt: Count an attempt to log in as a failure until it succeeds; none during a lock.
INSERT INTO login_failure AS known (what, failures) VALUES (%(what)s, 1)
ON CONFLICT (what) DO UPDATE SET
    failures = CASE
        WHEN known.failed_at < now() - make_interval(secs => %(forget_after)s) THEN 1
        ELSE known.failures + 1
    END,
    failed_at = now(),
    locked_until = CASE
        WHEN known.failed_at >= now() - make_interval(secs => %(forget_after)s)
            AND known.failures + 1 >= %(most)s
        THEN now() + make_interval(secs => least(
            %(longest)s, %(first)s * 2.0 ^ least(known.failures + 1 - %(most)s, 20)
        ))
    END
WHERE known.locked_until IS NULL OR known.locked_until <= now()
RETURNING failures;

-- locked_for: The remaining time of a lock.
SELECT extract(epoch FROM locked_until - now())::double precision AS seconds
FROM login_failure WHERE what = %(what)s AND locked_until > now();

-- succeeded: Forget the failures of an account.
DELETE FROM login_failure WHERE what = %(what)s;

-- take_back: Count one failure less.
UPDATE login_failure SET failures = failures - 1, locked_until = NULL WHERE what = %(what)s;

-- drop_old_failures: Remove old failures.
DELETE FROM login_failure WHERE failed_at < now() - make_interval(secs => %(seconds)s);
