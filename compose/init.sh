#!/bin/sh
# Makes .env and secrets/ with fresh passwords; what is there already stays as it is.
#   ./init.sh [SECRET...]
# SECRET: further secrets, such as clientapp-3 for a third SuperNode. To change a secret, remove it and run
# this again; docs/compose.md says what to restart then.
set -eu
cd "$(dirname "$0")"
umask 077

# A letter first: NATS takes what begins with a digit for a number.
random() {
    printf 'p%s' "$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')"
}

setting() {
    grep -qs "^$1=" .env || printf '%s=%s\n' "$1" "$2" >>.env
}

# Containers run as users of their own, so the files are readable; the directory is not.
secret() {
    [ -e "secrets/$1" ] || { random >"secrets/$1" && chmod 0444 "secrets/$1"; }
}

# Of each kind of process at NATS, and of its servers among themselves.
for name in SUPERLINK GATEWAY OPERATOR CONSOLE BACKUP ROUTES; do
    setting "NATS_${name}_PASSWORD" "$(random)"
done
# Of the superuser, who makes the tables, and of superlinks.
setting POSTGRES_PASSWORD "$(random)"
setting POSTGRES_SUPERLINK_PASSWORD "$(random)"
# Where SuperNodes reach the runtime: 0.0.0.0 for other machines too, with TLS only.
setting FLEET_ADDRESS 127.0.0.1
# Where users do, who run code in this stack and on every SuperNode: this machine alone.
setting CONTROL_ADDRESS 127.0.0.1
# true: users log in, with accounts that `flower-nats account create` makes; with compose.tls.yaml. LOGIN_URL is
# where their browsers reach port 9093.
setting ACCOUNTS false
setting LOGIN_URL https://localhost:9093
# true: with accounts, SuperNodes may join that no account has registered, such as those of this stack.
setting SELF_REGISTRATION false
# For SuperExecs. --allow-runtime-dependency-installation installs what an app depends on when it starts, with
# compose.internet.yaml. Empty: everything is in the images already.
setting SUPEREXEC_FLAGS ""

mkdir -p secrets
# What superlinks show an OIDC issuer, with compose.oidc.yaml.
mkdir -p -m 0755 secrets/oidc
for name in superexec clientapp-1 clientapp-2 "$@"; do
    secret "$name"
done

# For compose.ha.yaml alone.
if [ ! -e secrets/core ]; then
    if command -v openssl >/dev/null; then
        ./certificates.sh --core
    else
        echo "Without openssl there are no certificates for NATS and PostgreSQL: compose.yaml alone runs." >&2
    fi
fi
