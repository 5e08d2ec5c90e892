#!/bin/bash
# make-certs.sh - a private CA and certificates for a trial of TLS; not for what matters: the CA's key lies beside them.
#
# Writes to DIR (mode 0700, keys 0600): ca.pem and ca.key, made once and used again; node.pem and node.key for the
# cluster's nodes; client.pem and client.key for clients that must show a certificate; cluster-tls.json, the line for
# cluster.json when DIR lies in the data directory. What is there is not replaced,
# unless --renew is given, which makes certificates and keys anew but never the CA.
set -euo pipefail

# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

usage() {
	cat <<-END
		Usage: make-certs.sh [--host NAME]... [--days N] [--renew] DIR
		Makes a private CA and certificates for a trial of Grizzly with TLS in DIR.
		  --host NAME  a name or an IP address that clients use for the nodes, besides localhost, 127.0.0.1 and ::1
		  --days N     for how long the certificates are valid (365)
		  --renew      makes new certificates and keys, by the same CA
	END
}

hosts=(localhost 127.0.0.1 ::1)
days=365
renew=0
dir=
while [ $# -gt 0 ]; do
	case $1 in
	--host)
		take_value "$1" $#
		hosts+=("$2")
		shift
		;;
	--days)
		take_value "$1" $#
		whole_number "$1" "$2" 1 36500
		days=$2
		shift
		;;
	--renew) renew=1 ;;
	--help | -h)
		usage
		exit 0
		;;
	-*) usage_error "unknown option $1" ;;
	*)
		[ -z "$dir" ] || usage_error "one directory, please"
		dir=$1
		;;
	esac
	shift
done
[ -n "$dir" ] || usage_error "a directory for the certificates is needed"
command -v openssl >/dev/null 2>&1 || die "openssl is missing; Debian package: openssl"

umask 077
mkdir -p "$dir"
work=$(mktemp -d "$dir/.new.XXXXXX")
trap 'rm -rf "$work"' EXIT

# quietly COMMAND…: openssl tells its progress on stderr; only a failure's words are wanted.
quietly() {
	"$@" 2>"$work/said" || die "$(cat "$work/said")"
}

new_key() {
	quietly openssl ecparam -name prime256v1 -genkey -noout -out "$1"
}

names() {
	local host list=
	for host in "${hosts[@]}"; do
		case $host in
		*[!0-9a-zA-Z.:*-]* | '') die "--host \"$host\" is neither a name nor an address" ;;
		*:* | *[0-9].[0-9]*.[0-9]*.[0-9]*) list+=,IP:$host ;;
		*) list+=,DNS:$host ;;
		esac
	done
	printf '%s' "${list#,}"
}

# sign NAME COMMON-NAME EXTENSION…
sign() {
	local name=$1 common_name=$2
	shift 2
	if [ -e "$dir/$name.pem" ] && [ "$renew" -eq 0 ]; then
		say "$dir/$name.pem is there already"
		return
	fi
	new_key "$work/$name.key"
	quietly openssl req -new -key "$work/$name.key" -subj "/CN=$common_name" -out "$work/$name.csr"
	printf '%s\n' "basicConstraints=critical,CA:FALSE" "keyUsage=critical,digitalSignature" \
		"subjectKeyIdentifier=hash" "authorityKeyIdentifier=keyid" "$@" >"$work/$name.ext"
	quietly openssl x509 -req -in "$work/$name.csr" -CA "$dir/ca.pem" -CAkey "$dir/ca.key" -sha256 -days "$days" \
		-set_serial "0x$(openssl rand -hex 16)" -extfile "$work/$name.ext" -out "$work/$name.pem"
	mv "$work/$name.key" "$dir/$name.key"
	mv "$work/$name.pem" "$dir/$name.pem"
	say "made $dir/$name.pem and $dir/$name.key"
}

if [ ! -e "$dir/ca.pem" ]; then
	new_key "$work/ca.key"
	quietly openssl req -x509 -new -key "$work/ca.key" -sha256 -days 3650 -subj "/CN=Grizzly trial CA" \
		-addext "basicConstraints=critical,CA:TRUE,pathlen:0" -addext "keyUsage=critical,keyCertSign,cRLSign" \
		-out "$work/ca.pem"
	mv "$work/ca.key" "$dir/ca.key"
	mv "$work/ca.pem" "$dir/ca.pem"
	say "made $dir/ca.pem and $dir/ca.key"
fi
sign node "Grizzly nodes" "extendedKeyUsage=serverAuth,clientAuth" "subjectAltName=$(names)"
sign client "Grizzly client" "extendedKeyUsage=clientAuth"
name=$(basename "$dir")
printf '"tls": {"cert_file": "%s/node.pem", "key_file": "%s/node.key", "ca_file": "%s/ca.pem"}\n' "$name" "$name" "$name" \
	>"$dir/cluster-tls.json"
