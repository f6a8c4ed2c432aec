#!/bin/sh
# Makes a certificate authority, and a server certificate signed by it, in secrets/.
#   ./certificates.sh [NAME...]
# NAME: names and addresses under which other machines reach this one. The authority is kept when
# this is run again; ca.crt is what SuperNodes and the flwr command need.
set -eu
cd "$(dirname "$0")"
umask 077
mkdir -p secrets
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

rm -f server.pem server.pem.key
key server.pem.key
openssl req -new -key server.pem.key -subj "/CN=flower-nats" -out server.csr
printf 'subjectAltName=%s\nextendedKeyUsage=serverAuth\nbasicConstraints=critical,CA:FALSE\n' \
    "$alternatives" >server.ext
openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -sha256 -days 365 \
    -extfile server.ext -out server.pem 2>/dev/null
rm -f server.csr server.ext

# Containers run as users of their own, so what they read is readable; the directory is not.
chmod 0444 ca.crt server.pem server.pem.key
echo "secrets/server.pem is good for a year, for $alternatives"
