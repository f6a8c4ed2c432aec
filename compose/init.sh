#!/bin/sh
# Makes .env and secrets/ with new passwords; existing settings and secrets stay as they are.
#   ./init.sh [SECRET...]
# SECRET: further secrets, such as clientapp-3 for a third SuperNode. To change a secret, remove it and run
# this script again; docs/compose.md says which containers to restart.
set -eu
cd "$(dirname "$0")"
umask 077

# A letter first: NATS reads a value that begins with a digit as a number.
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

# For each kind of process at NATS, and for the routes between NATS servers.
for name in SUPERLINK GATEWAY OPERATOR CONSOLE BACKUP ROUTES; do
    setting "NATS_${name}_PASSWORD" "$(random)"
done
# For the superuser, who makes the tables, and for superlinks.
setting POSTGRES_PASSWORD "$(random)"
setting POSTGRES_SUPERLINK_PASSWORD "$(random)"
# The address for SuperNodes: 0.0.0.0 for other machines, too, with TLS only.
setting FLEET_ADDRESS 127.0.0.1
# The address for users, who run code in this stack and on every SuperNode: this machine alone.
setting CONTROL_ADDRESS 127.0.0.1
# true: users log in, with accounts that `flower-nats account create` makes; with compose.tls.yaml. LOGIN_URL is the
# address at which their browsers reach port 9093.
setting ACCOUNTS false
setting LOGIN_URL https://localhost:9093
# true: with accounts, unregistered SuperNodes may join, such as those of this stack.
setting SELF_REGISTRATION false
# For SuperExecs. --allow-runtime-dependency-installation installs an app's dependencies when the app starts, with
# compose.internet.yaml. Empty: all packages are in the images.
setting SUPEREXEC_FLAGS ""

mkdir -p secrets
# Files of superlinks for an OIDC issuer, with compose.oidc.yaml.
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
