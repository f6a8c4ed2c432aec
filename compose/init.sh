#!/bin/sh
# Makes .env and secrets/ with fresh passwords; what is there already stays as it is.
#   ./init.sh
# To change a secret, remove it and run this again; docs/compose.md says what to restart then.
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

setting NATS_PASSWORD "$(random)"
setting POSTGRES_PASSWORD "$(random)"
# Where clients reach the runtime: 0.0.0.0 for other machines too, with TLS only.
setting PUBLISH_ADDRESS 127.0.0.1
# Installs what an app depends on when it starts. Empty: everything is in the images already.
setting SUPEREXEC_FLAGS --allow-runtime-dependency-installation

mkdir -p secrets
secret superexec
secret clientapp
