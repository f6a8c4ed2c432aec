-- create: Store an account; none if its name, or its subject at the issuer, is taken.
INSERT INTO account (account_id, name, issuer, subject, role)
VALUES (%(account_id)s, %(name)s, %(issuer)s, %(subject)s, %(role)s)
ON CONFLICT DO NOTHING
RETURNING *;

-- list: All accounts by name.
SELECT * FROM account ORDER BY lower(name);

-- by_name: An account by name, in any case of letters.
SELECT * FROM account WHERE lower(name) = lower(%(name)s);

-- set_role: Change what an account may do.
UPDATE account SET role = %(role)s WHERE account_id = %(account_id)s;

-- disable: Disable an account.
UPDATE account SET disabled_at = coalesce(disabled_at, now()) WHERE account_id = %(account_id)s;

-- enable: Enable an account again. It has to log in anew.
UPDATE account SET disabled_at = NULL WHERE account_id = %(account_id)s;

-- open_session: Store a session of an account; none if it has a session with this name.
INSERT INTO account_session (
    session_id, account_id, name, expires_at, issuer_token, issuer_seen_at
)
VALUES (
    %(session_id)s, %(account_id)s, %(name)s, now() + make_interval(secs => %(seconds)s),
    %(issuer_token)s, now()
)
ON CONFLICT DO NOTHING
RETURNING session_id;

-- add_token: Keep the hash of a token.
INSERT INTO account_token (token_hash, session_id, kind, expires_at)
VALUES (
    %(token_hash)s, %(session_id)s, %(kind)s, now() + make_interval(secs => %(seconds)s)
);

-- by_token: The account and the session of an access token.
SELECT account.*, account_session.session_id
FROM account_token
JOIN account_session USING (session_id)
JOIN account USING (account_id)
WHERE token_hash = %(token_hash)s
    AND kind = 'access'
    AND account_token.expires_at > now()
    AND account_session.expires_at > now()
    AND account.disabled_at IS NULL;

-- by_session: A session with its account, as long as it lasts.
SELECT account.*, account_session.session_id
FROM account_session
JOIN account USING (account_id)
WHERE session_id = %(session_id)s
    AND account_session.expires_at > now()
    AND account.disabled_at IS NULL;

-- named_sessions: The named tokens of an account, by their end.
SELECT name, created_at, expires_at FROM account_session
WHERE account_id = %(account_id)s AND name IS NOT NULL AND expires_at > now()
ORDER BY expires_at;

-- end_named: Revoke a token by its name.
DELETE FROM account_session
WHERE account_id = %(account_id)s AND name = %(name)s
RETURNING session_id;

-- end_expired_named: Remove an expired token, so that a new one may have its name.
DELETE FROM account_session
WHERE account_id = %(account_id)s AND name = %(name)s AND expires_at < now();

-- end_all: Revoke all sessions of an account.
DELETE FROM account_session WHERE account_id = %(account_id)s;

-- drop_expired_sessions: Remove expired sessions.
DELETE FROM account_session WHERE expires_at < now();

-- drop_expired_tokens: Remove expired tokens.
DELETE FROM account_token WHERE expires_at < now();

-- by_id: An account.
SELECT * FROM account WHERE account_id = %(account_id)s;

-- password: The password hash of an account that is not disabled.
SELECT password_hash FROM account
WHERE account_id = %(account_id)s AND issuer = '' AND disabled_at IS NULL;

-- set_password: Give an account another password.
UPDATE account SET password_hash = %(password_hash)s WHERE account_id = %(account_id)s;

-- end_logins: Revoke the sessions of an account from `flwr login`.
DELETE FROM account_session WHERE account_id = %(account_id)s AND name IS NULL;

-- by_refresh_token: The session of a refresh token, and since when the token is replaced. The session is locked until
-- the transaction ends.
SELECT account_session.session_id, account_session.account_id,
    account_session.issuer_token,
    account.issuer <> '' AS is_of_issuer,
    extract(epoch FROM now() - issuer_seen_at)::double precision AS issuer_seen_for,
    coalesce(extract(epoch FROM now() - replaced_at), 0)::double precision AS replaced_for
FROM account_token
JOIN account_session USING (session_id)
JOIN account USING (account_id)
WHERE token_hash = %(token_hash)s
    AND kind = 'refresh'
    AND account_token.expires_at > now()
    AND account_session.expires_at > now()
    AND account.disabled_at IS NULL
FOR UPDATE OF account_session, account_token;

-- replace_token: Note that another token has replaced this one.
UPDATE account_token SET replaced_at = coalesce(replaced_at, now()) WHERE token_hash = %(token_hash)s;

-- prolong: Extend a session to a number of seconds from now.
UPDATE account_session SET expires_at = now() + make_interval(secs => %(seconds)s)
WHERE session_id = %(session_id)s;

-- end_session: Revoke one session.
DELETE FROM account_session WHERE session_id = %(session_id)s;

-- by_subject: The account of a person by the issuer's subject.
SELECT * FROM account WHERE issuer = %(issuer)s AND subject = %(subject)s;

-- claim_issuer: Claim the task to ask the issuer about a session; none if it is claimed.
UPDATE account_session SET issuer_asked_until = now() + make_interval(secs => %(seconds)s)
WHERE session_id = %(session_id)s AND (issuer_asked_until IS NULL OR issuer_asked_until <= now())
RETURNING session_id;

-- leave_issuer: Give the claim to ask the issuer about a session back.
UPDATE account_session SET issuer_asked_until = NULL WHERE session_id = %(session_id)s;

-- issuer_answered: Store the issuer's new refresh token for a session.
UPDATE account_session
SET issuer_token = %(issuer_token)s, issuer_seen_at = now(), issuer_asked_until = NULL
WHERE session_id = %(session_id)s;
