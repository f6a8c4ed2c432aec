-- Who may call the Control API: people and their programs.
CREATE TABLE account (
    account_id text PRIMARY KEY,
    name text NOT NULL,
    issuer text NOT NULL DEFAULT '',
    subject text NOT NULL,
    role text NOT NULL CHECK (role IN ('user', 'operator')),
    password_hash text,
    created_at timestamptz NOT NULL DEFAULT now(),
    disabled_at timestamptz,
    UNIQUE (issuer, subject)
);

-- Names are unique in any case of letters, because people would confuse two that differ only by
-- case.
CREATE UNIQUE INDEX account_name ON account (lower(name));

-- Sessions of accounts: a `flwr login`, or a program with a named token.
CREATE TABLE account_session (
    session_id text PRIMARY KEY,
    account_id text NOT NULL REFERENCES account,
    name text,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    issuer_token bytea,
    issuer_seen_at timestamptz,
    issuer_asked_until timestamptz
);

CREATE INDEX account_session_of_account ON account_session (account_id);
CREATE UNIQUE INDEX account_session_name ON account_session (account_id, name);

-- Hashes of tokens. The end of a session removes its tokens.
CREATE TABLE account_token (
    token_hash bytea PRIMARY KEY,
    session_id text NOT NULL REFERENCES account_session ON DELETE CASCADE,
    kind text NOT NULL CHECK (kind IN ('access', 'refresh')),
    expires_at timestamptz NOT NULL,
    replaced_at timestamptz
);

CREATE INDEX account_token_of_session ON account_token (session_id);

-- Open `flwr login`s: the command has the device code, the person has the code to confirm.
CREATE TABLE device_login (
    device_hash bytea PRIMARY KEY,
    user_code text NOT NULL UNIQUE,
    asked_from text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    account_id text REFERENCES account,
    issued_at timestamptz,
    refused_at timestamptz,
    issuer_secret bytea,
    issuer_page text,
    issuer_code text,
    poll_at timestamptz
);

-- Failed logins, by account or by address, which may be locked.
CREATE TABLE login_failure (
    what text PRIMARY KEY,
    failures integer NOT NULL,
    failed_at timestamptz NOT NULL DEFAULT now(),
    locked_until timestamptz
);
