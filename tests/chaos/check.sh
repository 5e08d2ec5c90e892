#!/bin/sh
# check.sh - the chaos room's own tests, then a short attack with a fresh seed, as one test of `make check`.
# The last line is "N passed, N failed". CHAOS_SECONDS: how long the attack takes (20).
# GRIZZLY_SKIP_INTEGRATION: left out (exit 77, automake's "skipped"), for callers that run it themselves.
if [ -n "${GRIZZLY_SKIP_INTEGRATION:-}" ]; then
	echo "GRIZZLY_SKIP_INTEGRATION is set"
	exit 77
fi
command -v python3 >/dev/null 2>&1 || {
	echo "python3 is missing"
	exit 77
}
here=$(dirname "$0")
passed=0
failed=0

# unittest's summary on stderr: "Ran 19 tests in 0.1s", then "OK" or "FAILED (failures=1, errors=2)".
for name in test_linear test_checks; do
	out=$(python3 "$here/$name.py" 2>&1)
	result=$?
	ran=$(printf '%s\n' "$out" | sed -n 's/^Ran \([0-9]*\) test.*/\1/p')
	bad=$(printf '%s\n' "$out" | sed -n 's/^FAILED (\(.*\))$/\1/p' | tr ',' '\n' | awk -F= '{ n += $2 } END { print n + 0 }')
	if [ "$result" -ne 0 ]; then
		[ "$bad" -gt 0 ] || bad=1
		printf 'FAIL %s\n%s\n' "$name" "$out"
	fi
	passed=$((passed + ${ran:-0} - (bad < ${ran:-0} ? bad : ${ran:-0})))
	failed=$((failed + bad))
done

if python3 "$here/chaos.py" --build-dir "${top_builddir:-.}" --seconds "${CHAOS_SECONDS:-20}"; then
	passed=$((passed + 1))
else
	failed=$((failed + 1))
fi
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
