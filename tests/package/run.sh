#!/usr/bin/env bash
# run.sh - the Debian package in a clean system: installs, starts, is upgraded while it holds data, is removed and purged.
#
# Needs root, the network (debootstrap) and some 600 MB below TMPDIR, so `make check` does not run it. A system in a chroot
# has no service manager: the test is one, and starts what the service file says, as the user it says.
# Exit codes: 0 passed, 1 failed, 2 bad options.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../../scripts/lib.sh"

release=bookworm
mirror=http://deb.debian.org/debian
base=
keep=no
port=28470

print_help() {
	cat <<-END
	Usage: tests/package/run.sh [--mirror URL] [--release NAME] [--base TARBALL] [--keep]

	  --mirror URL    Debian mirror ($mirror)
	  --release NAME  release of Debian ($release)
	  --base TARBALL  a debootstrapped system to use; made there when missing, to be used again
	  --keep          leave the chroot behind
	END
}

while [ $# -gt 0 ]; do
	case $1 in
	--mirror | --release | --base)
		take_value "$1" $#
		declare "${1#--}=$2"
		shift 2
		;;
	--keep)
		keep=yes
		shift
		;;
	--help | -h)
		print_help
		exit 0
		;;
	*) usage_error "unknown option: $1" ;;
	esac
done
[ "$(id -u)" -eq 0 ] || die "needs root: debootstrap and chroot"
install_packages "${build_packages[@]}" debhelper debootstrap

work=$(mktemp -d -t grizzly-package-XXXXXX)
root=$work/root

clean_up() {
	local point pid
	for pid in /proc/[0-9]*; do # what runs in the chroot, and nothing else
		if [ "$(readlink "$pid/root" 2>/dev/null)" = "$root" ]; then
			kill -9 "${pid#/proc/}" 2>/dev/null || true
		fi
	done
	for point in "$root/proc" "$root/dev"; do
		if mountpoint -q "$point"; then
			umount -l "$point"
		fi
	done
	if [ "$keep" = yes ]; then
		say "kept: $root"
	else
		rm -rf "$work"
	fi
}
trap clean_up EXIT

in_root() {
	env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C DEBIAN_FRONTEND=noninteractive chroot "$root" "$@"
}

as_grizzly() {
	in_root setpriv --reuid grizzly --regid grizzly --clear-groups "$@"
}

make_system() {
	mkdir -p "$root"
	if [ -n "$base" ] && [ -f "$base" ]; then
		tar -C "$root" -xf "$base"
	else
		say "debootstrap $release"
		run_logged "$work/debootstrap.log" debootstrap debootstrap --variant=minbase --include=ca-certificates \
			"$release" "$root" "$mirror"
		[ -z "$base" ] || tar -C "$root" -cf "$base" .
	fi
	printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d" # there is no service manager to start anything
	chmod +x "$root/usr/sbin/policy-rc.d"
	mountpoint -q "$root/proc" || mount -t proc proc "$root/proc"
	[ -c "$root/dev/null" ] || mount --bind /dev "$root/dev"
	in_root apt-get update -qq >"$work/update.log" 2>&1 || { tail "$work/update.log" >&2 && die "apt-get update failed"; }
}

install_package() {
	cp "$1" "$root/tmp/"
	in_root apt-get install -y -qq --no-install-recommends "/tmp/${1##*/}" >"$work/install.log" 2>&1 ||
		{ tail -n 30 "$work/install.log" >&2 && die "the package cannot be installed"; }
}

# The service file's own words, with its defaults.
service_command() {
	# shellcheck disable=SC1091 # in the chroot
	(. "$root/etc/default/grizzly" && sed -n "s|^ExecStart=||p" "$root/lib/systemd/system/grizzly.service" |
		sed "s|\$GRIZZLY_OPTIONS|$GRIZZLY_OPTIONS|")
}

start_service() {
	local words
	read -r -a words < <(service_command)
	as_grizzly "${words[@]}" --daemon >"$work/start.log" 2>&1 || { cat "$work/start.log" >&2 && die "it does not start"; }
	wait_ready
}

wait_ready() {
	local give_up=$((SECONDS + 60))
	until [ "$(curl -s -o /dev/null -w '%{http_code}' "http://127.0.0.1:$port/ready")" = 200 ]; do
		[ "$SECONDS" -lt "$give_up" ] || die "the cluster is not ready within a minute"
		sleep 0.1
	done
}

query() {
	curl -sS "http://127.0.0.1:$port/query" -H "Authorization: Bearer $(cat "$root/var/lib/grizzly/token")" -d "$1"
}

expect() {
	case $2 in
	*"$3"*) say "ok   $1" ;;
	*) die "$1: expected \"$3\", got: $2" ;;
	esac
}

stop_service() {
	as_grizzly grizzly-supervisor stop --data-dir /var/lib/grizzly >/dev/null || die "it does not stop"
}

# What the package must leave no trace of after a purge.
leftovers() {
	find "$root/etc" "$root/usr" "$root/lib" "$root/var/lib/grizzly" "$root/var/log/grizzly" -iname '*grizzly*' \
		2>/dev/null || true
	grep grizzly "$root/etc/passwd" "$root/etc/group" || true
}

say "building two packages"
first=$("$top_dir/scripts/build-deb.sh" --out "$work/1" --revision 1 | tail -n 1)
second=$("$top_dir/scripts/build-deb.sh" --out "$work/2" --revision 2 | tail -n 1)
make_system

install_package "$first"
say "ok   installs"
expect "programs run" "$(in_root grizzly-supervisor --version)" "grizzly-supervisor"
expect "has a user" "$(in_root id grizzly)" "(grizzly)"
expect "the data directory is private" "$(in_root stat -c '%a %U' /var/lib/grizzly)" "700 grizzly"
expect "manual pages" "$(find "$root/usr/share/man" -name 'grizzly*' | wc -l)" "4"
expect "the service file is clean" "$(in_root systemd-analyze verify --man=no grizzly.service 2>&1 | grep -i grizzly ||
	echo clean)" "clean"
sed -i "s|^GRIZZLY_OPTIONS=.*|GRIZZLY_OPTIONS=\"--http-port $port --replicas 2\"|" "$root/etc/default/grizzly"
start_service
expect "writes" "$(query '{"statements":[{"sql":"CREATE TABLE t(a)"},{"sql":"INSERT INTO t VALUES(42)"}]}')" '"ok"'
expect "logs where logs belong" "$(ls "$root/var/log/grizzly")" "node1.log"
expect "check-config" "$(as_grizzly grizzly-supervisor check-config --data-dir /var/lib/grizzly)" "\"http_port\": $port"
expect "logrotate" "$(in_root sh -c 'command -v logrotate >/dev/null || apt-get install -y -qq logrotate >/dev/null 2>&1;
	logrotate --force /etc/logrotate.d/grizzly && ls /var/log/grizzly')" "node1.log.1"

pids() {
	as_grizzly grizzly-supervisor status --json --data-dir /var/lib/grizzly | sed -n 's/.*"pid": \([0-9]*\).*/\1/p'
}

# An upgrade restarts process by process.
before=$(pids)
install_package "$second"
[ "$(pids | grep -cxF "$before" || true)" = 0 ] || die "an upgrade leaves old processes running"
expect "each node is restarted, one after the other" "$(cat "$work/install.log")" "the supervisor runs"
# shellcheck disable=SC2016 # dpkg-query expands it
expect "is upgraded" "$(in_root dpkg-query -W -f '${Version}' grizzly)" "-2"
expect "keeps its defaults" "$(cat "$root/etc/default/grizzly")" "$port"
expect "served on meanwhile" "$(query '{"sql":"SELECT a FROM t"}')" "[[42]]"
stop_service
start_service
expect "has its data after the upgrade" "$(query '{"sql":"SELECT a FROM t"}')" "[[42]]"

in_root apt-get remove -y -qq grizzly >"$work/remove.log" 2>&1 || die "it cannot be removed"
expect "removing ends what runs" "$(curl -s -m 2 -o /dev/null -w '%{http_code}' "http://127.0.0.1:$port/ready" || true)" "000"
expect "removing keeps the data" "$(ls "$root/var/lib/grizzly")" "cluster.json"
install_package "$second"
start_service
expect "installed again, it has its data" "$(query '{"sql":"SELECT a FROM t"}')" "[[42]]"
in_root apt-get purge -y -qq grizzly >"$work/purge.log" 2>&1 || { cat "$work/purge.log" >&2 && die "it cannot be purged"; }
[ -z "$(leftovers)" ] || die "left behind by purge: $(leftovers)"
say "ok   purging leaves nothing"
say "the package is fine"
