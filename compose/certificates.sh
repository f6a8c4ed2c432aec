#!/bin/sh
# Makes a certificate authority, in secrets/, and a server certificate signed by it, in secrets/tls/.
#   ./certificates.sh [NAME...]
# NAME: names and addresses under which other machines reach this one. A second run keeps the
# authority. SuperNodes and the flwr command need ca.crt.
#   ./certificates.sh --core [NAME...]
# The same for NATS and PostgreSQL of compose.ha.yaml, by an authority of their own: core-ca.crt, and
# certificates in secrets/core/.
set -eu
cd "$(dirname "$0")"
umask 077
mkdir -p secrets
cd secrets
new=$(mktemp -d new.XXXXXX)
trap 'rm -rf "$new"' EXIT

key() {
    openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384 -out "$1" 2>/dev/null
}

# authority NAME: makes NAME.key and NAME.crt, if they are not there.
authority() {
    [ -e "$1.key" ] && return
    key "$1.key"
    openssl req -x509 -new -key "$1.key" -sha256 -days 3650 -subj "/CN=flower-nats local authority" \
        -addext basicConstraints=critical,CA:TRUE,pathlen:0 \
        -addext keyUsage=critical,keyCertSign,cRLSign -out "$1.crt"
    chmod 0444 "$1.crt"
}

# certificate AUTHORITY FILE KEY ALTERNATIVES: replaces each file in one step; running balancers and gateways
# then read it again.
certificate() {
    mkdir -p "$(dirname "$2")"
    key "$new/key"
    openssl req -new -key "$new/key" -subj "/CN=flower-nats" -out "$new/request"
    {
        echo "subjectAltName=$4"
        echo "extendedKeyUsage=serverAuth,clientAuth"
        echo "basicConstraints=critical,CA:FALSE"
        # Python 3.13 and newer refuse a certificate without it.
        echo "subjectKeyIdentifier=hash"
        echo "authorityKeyIdentifier=keyid"
    } >"$new/extensions"
    openssl x509 -req -in "$new/request" -CA "$1.crt" -CAkey "$1.key" -sha256 -days 365 \
        -extfile "$new/extensions" -out "$new/certificate" 2>/dev/null
    # Containers run as users of their own, so their files are readable; the directory above is not.
    chmod 0755 "$(dirname "$2")"
    chmod 0444 "$new/key" "$new/certificate"
    mv -f "$new/key" "$3"
    mv -f "$new/certificate" "$2"
    echo "secrets/$2 is good for a year, for $4"
}

# alternatives NAME...: prints names and addresses in the form of openssl.
alternatives() {
    list=
    for name in "$@"; do
        case $name in
        *[!0-9.]*) case $name in *:*) kind=IP ;; *) kind=DNS ;; esac ;;
        *) kind=IP ;;
        esac
        list="$list,$kind:$name"
    done
    echo "${list#,}"
}

if [ "${1:-}" = --core ]; then
    shift
    authority core-ca
    certificate core-ca core/nats.pem core/nats.key "$(alternatives nats-1 nats-2 nats-3 "$@")"
    certificate core-ca core/postgres.pem core/postgres.key "$(alternatives postgres "$@")"
else
    authority ca
    certificate ca tls/server.pem tls/server.pem.key \
        "$(alternatives localhost 127.0.0.1 balancer app-balancer gateway "$@")"
fi
