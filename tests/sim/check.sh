#!/bin/sh
# check.sh - the simulator as one of the test programs of `make check`, which sets top_builddir.
exec "${top_builddir:-.}/tests/sim/sim" --check "$(dirname "$0")/regressions.txt"
