#!/usr/bin/env bash
# stop-cluster.sh - orderly stop of the cluster in a data directory, whether its supervisor runs, hangs or is gone.
# Exit codes: 0 it does not run (any more), 1 it could not be stopped, 2 bad options.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

data_dir=./data

print_help() {
	cat <<-END
	Usage: scripts/stop-cluster.sh [--data-dir DIR]

	Stops the supervisor and every node of the cluster in DIR (./data): requests under way are answered first.
	Exit codes: 0 stopped or not running, 1 failed, 2 bad options.
	END
}

while [ $# -gt 0 ]; do
	case $1 in
	--data-dir)
		take_value "$1" $#
		data_dir=$2
		shift 2
		;;
	--data-dir=*)
		data_dir=${1#*=}
		shift
		;;
	--help | -h)
		print_help
		exit 0
		;;
	*) usage_error "unknown option: $1" ;;
	esac
done
[ -n "$data_dir" ] || usage_error "--data-dir: empty"

# Nodes and supervisor of $data_dir that run, by the pids on record, as text.
running_pids() {
	local pid pids=()
	for pid in $(cat "$data_dir/run/supervisor.lock" 2>/dev/null) \
		$(sed -n 's/.*"pid": \([0-9][0-9]*\).*/\1/p' "$data_dir/run/supervisor.json" 2>/dev/null); do
		case $(tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null) in
		*grizzly-*) pids+=("$pid") ;;
		esac
	done
	printf '%s' "${pids[*]}"
}

if [ ! -d "$data_dir" ]; then
	say "no cluster runs in $data_dir"
	exit 0
fi
if ! find_programs; then
	still=$(running_pids)
	[ -z "$still" ] || die "no grizzly-supervisor in $programs_dir to stop the cluster in $data_dir with (pids $still)"
	say "no cluster runs in $data_dir"
	exit 0
fi
code=0
said=$("$programs_dir/grizzly-supervisor" stop --data-dir "$data_dir") || code=$?
case $code:$said in
0:"nothing runs") say "no cluster runs in $data_dir" ;;
0:*) say "the cluster in $data_dir is stopped" ;;
*) die "the cluster in $data_dir could not be stopped (exit code $code)" ;;
esac
