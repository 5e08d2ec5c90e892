#!/usr/bin/env bash
# fuzz.sh - searches for inputs that break a fuzz target (tests/fuzz), with libFuzzer, AddressSanitizer and UBSan.
# What it finds is kept in tests/fuzz/regressions/TARGET and from then on run again by `make check`.
# Exit codes: 0 nothing found, 1 something found (or the build failed), 2 bad options.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

fuzz_packages=(clang libclang-rt-14-dev python3)
minimise=no

print_help() {
	cat <<-END
	Usage: scripts/fuzz.sh [--minimise] [TARGET [SECONDS]]

	Builds tests/fuzz with clang in build-fuzz and runs one target, or each in turn, for SECONDS (60).
	Without a TARGET it takes all. Inputs of use are gathered in build-fuzz/corpus/TARGET.

	  --minimise  afterwards replace tests/fuzz/corpus/TARGET by the fewest inputs that reach as much of the code
	  --help      this text

	Targets: $(targets)
	END
}

targets() {
	local file
	for file in "$top_dir"/tests/fuzz/fuzz_*.c; do
		basename "$file" .c
	done | sed 's/^fuzz_//' | tr '\n' ' '
}

words=()
while [ $# -gt 0 ]; do
	case $1 in
	--minimise) minimise=yes ;;
	--help | -h)
		print_help
		exit 0
		;;
	-*) usage_error "unknown option: $1" ;;
	*) words+=("$1") ;;
	esac
	shift
done
[ "${#words[@]}" -le 2 ] || usage_error "too many arguments"
chosen=${words[0]:-}
seconds=${words[1]:-60}
whole_number SECONDS "$seconds" 1 99999
if [ -n "$chosen" ] && [ ! -f "$top_dir/tests/fuzz/fuzz_$chosen.c" ]; then
	usage_error "there is no target \"$chosen\"; there are: $(targets)"
fi

install_packages "${build_packages[@]}" "${fuzz_packages[@]}"
build_dir=$top_dir/build-fuzz
build "$build_dir" fuzz-programs --enable-fuzzer CC=clang CFLAGS='-O1 -g'

# The targets' scratch files go to memory where there is some.
scratch=$(TMPDIR=$([ -w /dev/shm ] && echo /dev/shm || echo "${TMPDIR:-/tmp}") mktemp -d -t grizzly-fuzz-XXXXXX)
trap 'rm -rf "$scratch"' EXIT
export TMPDIR=$scratch

# fuzz TARGET: 1 when it found something.
fuzz() {
	local target=$1 program=$build_dir/tests/fuzz/fuzz_$1 gathered=$build_dir/corpus/$1
	local kept=$top_dir/tests/fuzz/corpus/$1 regressions=$top_dir/tests/fuzz/regressions/$1 result=0
	mkdir -p "$gathered" "$kept" "$regressions" "$scratch/seeds"
	rm -rf "$scratch/seeds"
	python3 "$top_dir/tests/fuzz/seeds.py" "$target" "$scratch/seeds"
	say "fuzzing $target for $seconds s"
	"$program" "$gathered" "$kept" "$regressions" "$scratch/seeds" -max_total_time="$seconds" -max_len=4096 -timeout=20 \
		-rss_limit_mb=2048 -print_final_stats=1 -artifact_prefix="$regressions/" 2>"$build_dir/fuzz_$target.log" || result=1
	grep -E '^#.* (DONE|INITED)|^stat::number_of_executed|check failed|ERROR|runtime error' "$build_dir/fuzz_$target.log" ||
		true
	[ "$result" -eq 0 ] || say "found something: see $build_dir/fuzz_$target.log and $regressions"
	rmdir --ignore-fail-on-non-empty "$regressions"
	if [ "$minimise" = yes ] && [ "$result" -eq 0 ]; then
		mkdir "$scratch/least"
		"$program" -set_cover_merge=1 -use_counters=0 -max_len=4096 "$scratch/least" "$kept" "$gathered" "$scratch/seeds" \
			2>>"$build_dir/fuzz_$target.log"
		rm -rf "$kept"
		mv "$scratch/least" "$kept"
		say "$target: $(find "$kept" -type f | wc -l) inputs are kept"
	fi
	return "$result"
}

found=0
for target in ${chosen:-$(targets)}; do
	fuzz "$target" || found=1
done
exit "$found"
