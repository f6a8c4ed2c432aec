#!/bin/sh
# Makes a certificate authority, in secrets/, and a server certificate signed by it, in secrets/tls/.
#   ./certificates.sh [NAME...]
# NAME: names and addresses under which other machines reach this one. The authority is kept when
# this is run again; ca.crt is what SuperNodes and the flwr command need.
set -eu
cd "$(dirname "$0")"
umask 077
mkdir -p secrets/tls
cd secrets

alternatives=DNS:localhost,IP:127.0.0.1,DNS:balancer,DNS:gateway
for name in "$@"; do
    case $name in
    *[!0-9.]*) case $name in *:*) kind=IP ;; *) kind=DNS ;; esac ;;
    *) kind=IP ;;
    esac
    alternatives="$alternatives,$kind:$name"
done

key() {
    openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384 -out "$1" 2>/dev/null
}

if [ ! -e ca.key ]; then
    key ca.key
    openssl req -x509 -new -key ca.key -sha256 -days 3650 -subj "/CN=flower-nats local authority" \
        -addext basicConstraints=critical,CA:TRUE,pathlen:0 \
        -addext keyUsage=critical,keyCertSign,cRLSign -out ca.crt
fi

new=$(mktemp -d new.XXXXXX)
trap 'rm -rf "$new"' EXIT
key "$new/server.pem.key"
openssl req -new -key "$new/server.pem.key" -subj "/CN=flower-nats" -out "$new/server.csr"
printf 'subjectAltName=%s\nextendedKeyUsage=serverAuth\nbasicConstraints=critical,CA:FALSE\n' \
    "$alternatives" >"$new/server.ext"
openssl x509 -req -in "$new/server.csr" -CA ca.crt -CAkey ca.key -sha256 -days 365 \
    -extfile "$new/server.ext" -out "$new/server.pem" 2>/dev/null

# Containers run as users of their own, so what they read is readable; the directory above is not.
chmod 0755 tls
chmod 0444 ca.crt "$new/server.pem" "$new/server.pem.key"
# Each takes the place of the former in one step: balancer and gateways, if they run, read them then.
mv -f "$new/server.pem.key" "$new/server.pem" tls/
echo "secrets/tls/server.pem is good for a year, for $alternatives"
