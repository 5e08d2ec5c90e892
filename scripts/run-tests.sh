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
	switchover/switchover_under_load_fails_no_request_on_kept links/over_tls_if_there_is_tls restart/orderly_stop
	streaming/streams_are_one_snapshot
	query/runaway_query federation_joins/crowds_join_at_once)
# Programs of one thread: nothing can race there. So are the replays of fuzzed inputs, and the simulator.
tsan_skips=(test_answer test_change test_cluster test_cluster_random test_cluster_stall test_config test_federation
	test_formats test_query_memory test_query_read test_query_write test_receipts test_record test_remote_sql test_request
	test_roles test_row_store test_rows_reader test_shipped_answer test_store test_store_apply test_store_crash
	test_store_memory test_typed_rows test_wire)
# They take longest, for they wait.
long_programs=(test_supervisor test_link)

print_help() {
	cat <<-END
	Usage: scripts/run-tests.sh [--quick] [--filter PATTERN]

	Installs what is missing, then builds and tests three times, one build while the processes of another are tested:
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

# all_tests DIRECTORY: what `make check` runs, in one line.
all_tests() {
	# shellcheck disable=SC2016 # make expands it
	make -C "$1" -s --no-print-directory --eval 'print-tests: ; @echo $(TESTS)' print-tests
}

# test_programs DIRECTORY LABEL: those of all_tests that are to be built for a stage, but for the simulator.
test_programs() {
	local names=() name
	read -r -a names < <(all_tests "$1")
	for name in "${names[@]}"; do
		[[ $name == *.sh ]] || is_skipped "$2" "$name" || printf '%s ' "$name"
	done
}

# unit_tests DIRECTORY LABEL: the test programs of `make check` without the scenarios, three at a time, for some wait. The
# simulator and what else takes longest come first.
unit_tests() {
	local dir=$1 label=$2 programs=() long=() names=() name before=$passed started=$SECONDS
	read -r -a names < <(all_tests "$dir")
	for name in "${names[@]}"; do
		case $name in
		*integration/* | *chaos/*) ;;
		*"$filter"*)
			if is_skipped "$label" "$name"; then
				continue
			elif [[ $name == tests/sim/* ]]; then
				long=("$name" "${long[@]}")
			elif [[ " ${long_programs[*]} " == *" ${name##*/} "* ]]; then
				long+=("$name")
			else
				programs+=("$name")
			fi
			;;
		esac
	done
	programs=("${long[@]}" "${programs[@]}")
	[ "${#programs[@]}" -gt 0 ] || return 0
	find "$dir" -name '*.trs' -delete
	# ThreadSanitizer has each process sleep a second at its end, unless told.
	TSAN_OPTIONS=atexit_sleep_ms=0 make -C "$dir" -j3 check TESTS="${programs[*]}" check_PROGRAMS= \
		LOG_COMPILER="timeout -k 5 $unit_limit_s" >"$dir/check.log" 2>&1 ||
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

# build_for_tests STAGE CONFIGURE-OPTIONS…: 1 when it failed, which is counted and shown.
build_for_tests() {
	local stage=$1 dir=$top_dir/build-$1
	shift
	if ! (build "$dir" "" "$@" && build_test_programs "$dir" "$stage"); then
		failed=$((failed + 1))
		return 1
	fi
}

# build_test_programs DIRECTORY STAGE: all in the plain build; with a sanitizer those that its stage runs, whose own
# sources are not optimized then: what is tested is, and the simulator, which has a given time.
build_test_programs() {
	local dir=$1 stage=$2 options=()
	if [ "$stage" != plain ]; then
		options=(CFLAGS='-O0 -g1' check_PROGRAMS="$(test_programs "$dir" "$stage")")
		is_skipped "$stage" tests/sim/sim ||
			run_logged "$dir/make-sim.log" "make tests/sim/sim" make -C "$dir" -j2 tests/sim/sim || return 1
	fi
	# `check` without tests builds the test programs.
	run_logged "$dir/make-check.log" "make check" make -C "$dir" -j2 check TESTS= "${options[@]}"
}

# One part of one stage, in a process of its own (see run_part); it ends with "N passed, N failed".
if [ -n "${GRIZZLY_TESTS_PART:-}" ]; then
	stage=${GRIZZLY_TESTS_PART%:*}
	dir=$top_dir/build-$stage
	scenario_options=()
	[ -z "$filter" ] || scenario_options=(--filter "$filter")
	case $GRIZZLY_TESTS_PART in
	plain:build) build_for_tests plain --enable-werror || true ;;
	asan:build) build_for_tests asan --enable-asan --enable-werror CFLAGS='-O1 -g1' || true ;;
	tsan:build) build_for_tests tsan --enable-tsan --enable-werror CFLAGS='-O1 -g1' || true ;;
	*:units) unit_tests "$dir" "$stage" ;;
	plain:processes)
		scenarios "$dir" plain --jobs 5 "${scenario_options[@]}"
		chaos "$dir" plain 20
		;;
	asan:processes)
		scenarios "$dir" asan --quick --jobs 6 "${scenario_options[@]}"
		chaos "$dir" asan 12
		;;
	tsan:processes)
		if [ -z "$filter" ]; then
			for name in "${tsan_scenarios[@]}"; do
				scenario_options+=(--filter "$name")
			done
		fi
		scenarios "$dir" tsan --jobs 2 "${scenario_options[@]}"
		chaos "$dir" tsan 12
		;;
	*) die "GRIZZLY_TESTS_PART: no such part: $GRIZZLY_TESTS_PART" ;;
	esac
	finish
fi

install_packages "${build_packages[@]}" python3
fetch_program prometheus usr/bin/promtool "$top_dir/build-tools"
export PATH=$top_dir/build-tools:$PATH

# gcc's sanitizers want a small address space randomisation; without it they fail at random on recent kernels.
fixed_addresses=()
if setarch "$(uname -m)" -R true 2>/dev/null; then
	fixed_addresses=(setarch "$(uname -m)" -R)
fi

stages=(plain asan tsan)
[ "$quick" = no ] || stages=(plain)
results=$(mktemp -d -t grizzly-tests-XXXXXX)

# run_part STAGE PART NICENESS: runs build, units or processes of a stage and shows what it said when it is done. Its
# counts stay in $results/STAGE:PART. 1 when something failed.
run_part() {
	local part=$1:$2 options=() prefix=(nice -n "$3") counts
	[ "$1" = plain ] || prefix=("${fixed_addresses[@]}" "${prefix[@]}")
	[ -z "$filter" ] || options=(--filter "$filter")
	GRIZZLY_TESTS_PART=$part "${prefix[@]}" "${BASH_SOURCE[0]}" "${options[@]}" >"$results/$part.text" 2>&1 3>&- 4<&- || true # counted
	counts=$(tail -n 1 "$results/$part.text")
	if [[ $counts =~ ^[0-9]+\ passed,\ [0-9]+\ failed$ ]]; then
		sed -i '$d' "$results/$part.text"
	else
		counts="0 passed, 1 failed"
		say "FAIL $part ended without a count:" >>"$results/$part.text"
	fi
	cat "$results/$part.text"
	say "$counts" >"$results/$part.counts"
	[[ $counts == *" 0 failed" ]]
}

# Two lanes, for tests with processes wait now and then: the next stages are built meanwhile, by compilers that are niced
# and take what the tests leave. The lanes meet at a fifo: a line says which stage is built.
build_all() {
	local stage niceness=0
	for stage in "${stages[@]}"; do
		if run_part "$stage" build "$niceness"; then
			say "$stage" >&3
		elif [ "$stage" = plain ]; then
			break # the others would say the same
		fi
		niceness=19
	done
}

test_all() {
	local stage
	while read -r stage <&4; do
		run_part "$stage" units 0 || true
		run_part "$stage" processes 0 || true
	done
}

stop_lanes() {
	local lane
	for lane in "${lanes[@]}"; do
		kill -- "-$lane" 2>/dev/null || true
	done
	rm -rf "$results"
}

lanes=()
trap stop_lanes EXIT
trap 'exit 143' TERM
trap 'exit 130' INT
mkfifo "$results/built"
set -m # each lane is a process group, which can be ended as a whole
build_all 3>"$results/built" &
lanes+=("$!")
test_all 4<"$results/built" &
lanes+=("$!")
set +m
wait "${lanes[@]}" || true # what is missing is counted
lanes=()

# count_part STAGE PART: 1 when it failed, or did not run.
count_part() {
	local ok=0 bad=1
	if [ -f "$results/$1:$2.counts" ]; then
		read -r ok _ bad _ <"$results/$1:$2.counts"
	else
		say "FAIL $1:$2 did not run"
	fi
	passed=$((passed + ok))
	failed=$((failed + bad))
	[ "$bad" -eq 0 ]
}

for stage in "${stages[@]}"; do
	if count_part "$stage" build; then
		count_part "$stage" units || true
		count_part "$stage" processes || true
	elif [ "$stage" = plain ]; then
		break
	fi
done
finish
