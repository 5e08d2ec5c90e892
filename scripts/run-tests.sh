#!/usr/bin/env bash
# run-tests.sh - everything that is tested, from a clean checkout: packages, three builds, unit and integration tests.
# The last line is "N passed, N failed" (tests of the CUnit programs, other test programs, integration scenarios,
# tests of the chaos room).
# Exit codes: 0 all passed, 1 something failed, 2 bad options.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

quick=no
filter=
passed=0
failed=0
unit_limit_s=300 # one test program
# The scenarios run under ThreadSanitizer: a start, a load with replicas, each kind of takeover, an orderly stop, joins.
tsan_scenarios=(replication/replicas_are_equal_after_load failover/killed_master_loses_no_acknowledged_insert_on_fresh
	switchover/switchover_under_load_fails_no_request_on_kept restart/orderly_stop streaming/streams_are_one_snapshot
	query/runaway_query federation_joins/crowds_join_at_once)
# Programs of one thread: nothing can race there. So are the replays of fuzzed inputs, and the simulator.
tsan_skips=(test_answer test_change test_cluster test_cluster_random test_cluster_stall test_config test_federation
	test_formats test_query_memory test_query_read test_query_write test_receipts test_record test_remote_sql test_request
	test_roles test_row_store test_rows_reader test_shipped_answer test_store test_store_apply test_store_crash
	test_store_memory test_typed_rows test_wire)

print_help() {
	cat <<-END
	Usage: scripts/run-tests.sh [--quick] [--filter PATTERN]

	Installs what is missing, then builds and tests three times:
	  build-plain  warnings are errors; unit tests, every integration scenario, 20 s of chaos
	  build-asan   AddressSanitizer and UBSan; unit tests, integration scenarios, 12 s of chaos
	  build-tsan   ThreadSanitizer; unit tests, a few integration scenarios, 12 s of chaos

	  --quick           the first build only
	  --filter PATTERN  only test programs and scenarios whose name contains PATTERN (no sanitizers without a match)
	  --help            this text

	Scenarios alone: tests/integration/run.py --build-dir build-plain --filter PATTERN
	END
}

while [ $# -gt 0 ]; do
	case $1 in
	--quick) quick=yes ;;
	--filter)
		take_value "$1" $#
		filter=$2
		shift
		;;
	--filter=*) filter=${1#*=} ;;
	--help | -h)
		print_help
		exit 0
		;;
	*) usage_error "unknown option: $1" ;;
	esac
	shift
done

finish() {
	say "$passed passed, $failed failed"
	if [ "$failed" -gt 0 ] || [ "$passed" -eq 0 ]; then
		exit 1
	fi
	exit 0
}

# count_program LOG RESULT: adds what one test program's log says; a crash or time-out counts as one failure.
count_program() {
	local log=$1 result=$2 ok bad
	# CUnit's summary: "tests <total> <ran> <passed> <failed> <inactive>".
	read -r ok bad < <(awk '$1 == "tests" && NF == 6 { ok += $4; bad += $5 } END { print ok + 0, bad + 0 }' "$log")
	case $result in
	SKIP) return 0 ;;
	PASS) [ "$((ok + bad))" -gt 0 ] || ok=1 ;;
	*) [ "$bad" -gt 0 ] || bad=1 ;;
	esac
	passed=$((passed + ok))
	failed=$((failed + bad))
	if [ "$bad" -gt 0 ] || [ "$result" != PASS ]; then
		say "FAIL $log"
		{ grep -n -E 'FAILED|^[[:space:]]+[0-9]+\. |ERROR|WARNING: Thread|runtime error|Assertion' "$log" | head -n 20; } || true
		tail -n 30 "$log"
	fi
}

# is_skipped LABEL PROGRAM
is_skipped() {
	[ "$1" = tsan ] && [[ $2 == tests/fuzz/* || $2 == tests/sim/* || " ${tsan_skips[*]} " == *" ${2##*/} "* ]]
}

# unit_tests DIRECTORY LABEL: the test programs of `make check` without the scenarios, two at a time.
unit_tests() {
	local dir=$1 label=$2 programs=() names=() name before=$passed started=$SECONDS
	# shellcheck disable=SC2016 # make expands it
	read -r -a names < <(make -C "$dir" -s --no-print-directory --eval 'print-tests: ; @echo $(TESTS)' print-tests)
	for name in "${names[@]}"; do
		case $name in
		*integration/* | *chaos/*) ;;
		*"$filter"*) is_skipped "$label" "$name" || programs+=("$name") ;;
		esac
	done
	[ "${#programs[@]}" -gt 0 ] || return 0
	find "$dir" -name '*.trs' -delete
	# ThreadSanitizer has each process sleep a second at its end, unless told.
	TSAN_OPTIONS=atexit_sleep_ms=0 make -C "$dir" -j2 check TESTS="${programs[*]}" LOG_COMPILER="timeout -k 5 $unit_limit_s" >"$dir/check.log" 2>&1 ||
		true # each program's own result says what failed
	for name in "${programs[@]}"; do
		if [ -f "$dir/$name.trs" ]; then
			count_program "$dir/$name.log" "$(sed -n 's/^:test-result: *//p' "$dir/$name.trs" | head -n 1)"
		else
			failed=$((failed + 1))
			say "FAIL $name did not run:"
			tail -n 30 "$dir/check.log"
		fi
	done
	say "unit tests, $label: $((passed - before)) passed in ${#programs[@]} programs ($((SECONDS - started)) s)"
	# What the simulator was given this time, so that a failure elsewhere can be looked for again.
	if [ -f "$dir/tests/sim/check.sh.log" ]; then
		grep -E '^(seeds from|[0-9]+ schedules in)' "$dir/tests/sim/check.sh.log" || true
	fi
}

# scenarios DIRECTORY LABEL OPTIONS…: the runner's lines are shown where they are not "ok".
scenarios() {
	local dir=$1 label=$2 log=$1/integration.log counts ok bad started=$SECONDS
	shift 2
	python3 "$top_dir/tests/integration/run.py" --build-dir "$dir" "$@" >"$log" 2>&1 || true # its last line is counted
	grep -v '^ok  ' "$log" | sed '$d' || true
	counts=$(tail -n 1 "$log")
	if [[ $counts =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed$ ]]; then
		ok=${BASH_REMATCH[1]} bad=${BASH_REMATCH[2]}
	elif [ -n "$filter" ] && [[ $counts == "no scenario matches"* ]]; then
		return 0
	else
		say "FAIL the scenarios' runner ended with: $counts"
		ok=0 bad=1
	fi
	passed=$((passed + ok))
	failed=$((failed + bad))
	say "integration scenarios, $label: $ok passed, $bad failed ($((SECONDS - started)) s; $log)"
}

# chaos DIRECTORY LABEL SECONDS: a short attack on real processes with a fresh seed; shown in full when it fails.
chaos() {
	local dir=$1 label=$2 log=$1/chaos.log counts ok=0 bad=1 started=$SECONDS
	[[ chaos == *"$filter"* ]] || return 0
	CHAOS_SECONDS=$3 top_builddir=$dir "$top_dir/tests/chaos/check.sh" >"$log" 2>&1 || true # its last line is counted
	counts=$(tail -n 1 "$log")
	if [[ $counts =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed$ ]]; then
		ok=${BASH_REMATCH[1]} bad=${BASH_REMATCH[2]}
	fi
	[ "$bad" -eq 0 ] || cut -c 1-2000 "$log"
	passed=$((passed + ok))
	failed=$((failed + bad))
	say "chaos, $label: $ok passed, $bad failed ($((SECONDS - started)) s; $(grep -m 1 -o 'seed [0-9]*' "$log"); $log)"
}

# build_for_tests DIRECTORY CONFIGURE-OPTIONS…: 1 when it failed, which is counted and shown.
build_for_tests() {
	local dir=$1
	shift
	# `check` without tests builds the test programs.
	if ! (build "$dir" "" "$@" && run_logged "$dir/make-check.log" "make check" make -C "$dir" -j2 check TESTS=); then
		failed=$((failed + 1))
		return 1
	fi
}

install_packages "${build_packages[@]}" python3

# gcc's sanitizers want a small address space randomisation; without it they fail at random on recent kernels.
fixed_addresses=()
if setarch "$(uname -m)" -R true 2>/dev/null; then
	fixed_addresses=(setarch "$(uname -m)" -R)
fi

scenario_options=()
[ -z "$filter" ] || scenario_options=(--filter "$filter")

if [ -z "${GRIZZLY_TESTS_STAGE:-}" ]; then
	build_for_tests "$top_dir/build-plain" --enable-werror || finish
	unit_tests "$top_dir/build-plain" plain
	scenarios "$top_dir/build-plain" plain --jobs 4 "${scenario_options[@]}"
	chaos "$top_dir/build-plain" plain 20
	[ "$quick" = no ] || finish
fi

# The sanitized stages run in a child whose addresses are fixed; its last line is added to ours.
run_stage() {
	local stage=$1 options=() line
	[ -z "$filter" ] || options=(--filter "$filter")
	line=$(mktemp)
	GRIZZLY_TESTS_STAGE=$stage "${fixed_addresses[@]}" "${BASH_SOURCE[0]}" "${options[@]}" | tee "$line" | sed '$d' || true
	if [[ $(tail -n 1 "$line") =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed$ ]]; then
		passed=$((passed + BASH_REMATCH[1]))
		failed=$((failed + BASH_REMATCH[2]))
	else
		failed=$((failed + 1))
	fi
	rm -f "$line"
}

case ${GRIZZLY_TESTS_STAGE:-} in
'')
	run_stage asan
	run_stage tsan
	;;
asan)
	build_for_tests "$top_dir/build-asan" --enable-asan --enable-werror CFLAGS='-O1 -g' || finish
	unit_tests "$top_dir/build-asan" asan
	scenarios "$top_dir/build-asan" asan --quick --jobs 4 "${scenario_options[@]}"
	chaos "$top_dir/build-asan" asan 12
	;;
tsan)
	build_for_tests "$top_dir/build-tsan" --enable-tsan --enable-werror CFLAGS='-O1 -g' || finish
	unit_tests "$top_dir/build-tsan" tsan
	if [ -z "$filter" ]; then
		for name in "${tsan_scenarios[@]}"; do
			scenario_options+=(--filter "$name")
		done
	fi
	scenarios "$top_dir/build-tsan" tsan --jobs 2 "${scenario_options[@]}"
	chaos "$top_dir/build-tsan" tsan 12
	;;
esac
finish
