#!/bin/sh
# check.sh - the integration scenarios as one test of `make check`, which sets top_builddir and srcdir.
# GRIZZLY_SKIP_INTEGRATION: left out (exit 77, automake's "skipped"), for callers that run run.py themselves.
if [ -n "${GRIZZLY_SKIP_INTEGRATION:-}" ]; then
	echo "GRIZZLY_SKIP_INTEGRATION is set"
	exit 77
fi
command -v python3 >/dev/null 2>&1 || {
	echo "python3 is missing"
	exit 77
}
exec python3 "$(dirname "$0")/run.py" --build-dir "${top_builddir:-.}"
