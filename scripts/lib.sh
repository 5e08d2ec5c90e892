# shellcheck shell=bash
# lib.sh - what the scripts share: Debian packages, out-of-tree builds, and reading the supervisor's answers.
#
# Sourced, never run. The caller has set -euo pipefail. Every function prints errors on stderr and ends the script with
# exit 1 through die(); nothing is installed, configured or compiled that is there already.
# GRIZZLY_BUILD_DIR names a build to use as it is, instead of building in <top>/build.

top_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build_packages=(build-essential autoconf automake pkg-config libevent-dev libnng-dev libjansson-dev libsqlite3-dev
	libcurl4-openssl-dev libxxhash-dev libssl-dev libcunit1-dev curl openssl)

say() {
	printf '%s\n' "$*"
}

die() {
	printf '%s: %s\n' "$(basename "$0")" "$*" >&2
	exit 1
}

usage_error() {
	printf '%s: %s\nTry --help.\n' "$(basename "$0")" "$*" >&2
	exit 2
}

# take_value OPTION ARGUMENTS-LEFT: an option that needs a value has one.
take_value() {
	if [ "$2" -lt 2 ]; then
		usage_error "$1 needs a value"
	fi
}

# whole_number OPTION VALUE LOWEST HIGHEST
whole_number() {
	case $2 in
	'' | *[!0-9]*) usage_error "$1: \"$2\" is not a number" ;;
	esac
	if [ "${#2}" -gt 5 ] || [ "$((10#$2))" -lt "$3" ] || [ "$((10#$2))" -gt "$4" ]; then
		usage_error "$1: $2 is not within $3..$4"
	fi
}

package_installed() {
	case $(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null || true) in
	installed) return 0 ;;
	esac
	return 1
}

# run_as_root COMMAND…: directly as root, else through sudo; 1 when there is neither.
run_as_root() {
	if [ "$(id -u)" -eq 0 ]; then
		"$@"
	elif command -v sudo >/dev/null 2>&1; then
		sudo -- "$@"
	else
		return 1
	fi
}

# install_packages PACKAGE…: installs those that are missing, all in one go.
install_packages() {
	local missing=() package log
	if ! command -v dpkg-query >/dev/null 2>&1; then
		say "not a Debian system: taking it that these are installed: $*"
		return 0
	fi
	for package in "$@"; do
		package_installed "$package" || missing+=("$package")
	done
	[ "${#missing[@]}" -gt 0 ] || return 0
	if [ "$(id -u)" -ne 0 ] && ! command -v sudo >/dev/null 2>&1; then
		die "missing packages, and neither root nor sudo to install them: run apt-get install ${missing[*]}"
	fi
	say "installing ${missing[*]}"
	log=$(mktemp)
	if ! run_as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq >"$log" 2>&1 ||
		! run_as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
			"${missing[@]}" >>"$log" 2>&1; then
		tail -n 20 "$log" >&2
		rm -f "$log"
		die "apt-get could not install ${missing[*]}"
	fi
	rm -f "$log"
}

# fetch_program PACKAGE PATH DIRECTORY: one program of a Debian package, put into DIRECTORY and not installed: nothing is
# set up, and no service of the package starts. Nothing is fetched where the program is there already.
fetch_program() {
	local package=$1 path=$2 dir=$3 program=${2##*/} log
	if [ -x "$dir/$program" ] || command -v "$program" >/dev/null 2>&1; then
		return 0
	fi
	if ! command -v apt-get >/dev/null 2>&1; then
		say "not a Debian system: doing without $program"
		return 0
	fi
	say "fetching $program of the package $package"
	rm -rf "$dir/fetched"
	mkdir -p "$dir/fetched"
	log=$dir/fetch.log
	# A machine without package lists gets them first.
	if ! (cd "$dir/fetched" && { apt-get download -q "$package" || { run_as_root apt-get update -q &&
		apt-get download -q "$package"; }; }) >"$log" 2>&1 ||
		! dpkg-deb --fsys-tarfile "$dir"/fetched/"$package"_*.deb 2>>"$log" |
		tar -xf - -C "$dir/fetched" "./$path" 2>>"$log" ||
		! mv "$dir/fetched/$path" "$dir/$program" 2>>"$log"; then
		tail -n 3 "$log" >&2
		say "could not fetch $program of the package $package ($log): doing without it"
	fi
	rm -rf "$dir/fetched"
}

# run_logged LOG WHAT COMMAND…: quiet unless it fails, then the end of its output is shown.
run_logged() {
	local log=$1 what=$2
	shift 2
	if ! "$@" >"$log" 2>&1; then
		tail -n 40 "$log" >&2
		die "$what failed; the whole output is in $log"
	fi
}

# build DIRECTORY TARGETS [CONFIGURE-OPTIONS…]: TARGETS is one string of make targets ("" for the default one).
build() {
	local dir=$1 targets=$2 words=()
	shift 2
	read -r -a words <<<"$targets"
	mkdir -p "$dir"
	if [ ! -x "$top_dir/configure" ] || [ ! -f "$top_dir/Makefile.in" ]; then
		say "autoreconf"
		(cd "$top_dir" && run_logged "$dir/autoreconf.log" autoreconf autoreconf -fi)
	fi
	if [ ! -f "$dir/Makefile" ] || [ ! -x "$dir/config.status" ]; then
		say "configure $* ($dir)"
		(cd "$dir" && run_logged "$dir/configure.log" configure "$top_dir/configure" "$@")
	fi
	say "make ${targets:-all} ($dir)"
	run_logged "$dir/make.log" make make -C "$dir" -j2 "${words[@]}"
}

# Sets programs_dir to where grizzly-supervisor is, building it first unless GRIZZLY_BUILD_DIR names a finished build.
ensure_programs() {
	if [ -n "${GRIZZLY_BUILD_DIR:-}" ]; then
		programs_dir=$(cd "$GRIZZLY_BUILD_DIR" && pwd)
		[ -x "$programs_dir/grizzly-supervisor" ] || die "no grizzly-supervisor in GRIZZLY_BUILD_DIR, $programs_dir"
		return 0
	fi
	install_packages "${build_packages[@]}"
	programs_dir=$top_dir/build
	build "$programs_dir" ""
}

# Like ensure_programs, but only looks: 1 when nothing has been built.
find_programs() {
	programs_dir=${GRIZZLY_BUILD_DIR:-$top_dir/build}
	[ -x "$programs_dir/grizzly-supervisor" ]
}

# json_text KEY: the first string value of that key in the JSON on stdin.
json_text() {
	sed -n 's/.*"'"$1"'"[[:space:]]*:[[:space:]]*"\([^"]*\)".*/\1/p' | head -n 1
}
