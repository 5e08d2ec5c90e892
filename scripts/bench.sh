#!/usr/bin/env bash
# bench.sh - builds, then measures a cluster of real processes on this machine beside yardsticks of the same run.
# Exit codes: 0 everything was measured, 1 something failed and was named, 2 bad options.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

build_dir=${GRIZZLY_BUILD_DIR:-$top_dir/build}
arguments=()
yardstick_packages=()

print_help() {
	cat <<-END
	Usage: scripts/bench.sh [--quick] [--only NAME]… [--json FILE] [--build-dir DIR] [--work-dir DIR] [--http-port PORT]
	                        [--workers N] [--postgres] [--keep]

	Prints a table: what was measured, the yardstick taken in the same run, the ratio of both, p50 and p99.

	  --quick          short runs: a smoke test, not a measurement
	  --only NAME      one of disk, store, pipeline, catchup, snapshot, memory, reads, writes, bulk, lag,
	                   failover, restart, add-replica, federation, flood, guarded; may be repeated
	  --postgres       compare with scratch servers of PostgreSQL 15, which is installed for it: writes with two standbys
	                   of which one must confirm, federation with postgres_fdw between two servers
	  --json FILE      write every figure there
	  --build-dir DIR  where to build (build/)
	  --work-dir DIR   where databases are written (\$TMPDIR or /tmp): its disk is the one that is measured
	  --http-port PORT the endpoint of the cluster under test (18480)
	  --workers N      threads of the bare evhttp server; as many as a node has HTTP workers (2)
	  --keep           keep databases and logs
	END
}

while [ $# -gt 0 ]; do
	case $1 in
	--build-dir)
		take_value "$1" $#
		build_dir=$2
		shift 2
		;;
	--only | --json | --work-dir | --http-port | --workers)
		take_value "$1" $#
		arguments+=("$1" "$2")
		shift 2
		;;
	--postgres)
		yardstick_packages=(postgresql-15)
		arguments+=("$1")
		shift
		;;
	--quick | --keep)
		arguments+=("$1")
		shift
		;;
	--help | -h)
		print_help
		exit 0
		;;
	*) usage_error "unknown option: $1" ;;
	esac
done

install_packages "${build_packages[@]}" "${yardstick_packages[@]}" python3
mkdir -p "$build_dir"
build_dir=$(cd "$build_dir" && pwd)
build "$build_dir" "all bench-programs"
exec python3 "$top_dir/tests/bench/bench.py" --build-dir "$build_dir" "${arguments[@]}"
