/*
 * planted.h - where the simulator can plant a bug, to show that it would find it.
 *
 * PLANTED(bug) is false, and nothing of it is compiled, everywhere but in the objects that tests/sim builds for itself with
 * GRIZZLY_SIM_BUGS. A name stands where the rule that it breaks is kept.
 */
#ifndef GRIZZLY_COMMON_BASE_PLANTED_H
#define GRIZZLY_COMMON_BASE_PLANTED_H

#ifdef GRIZZLY_SIM_BUGS
#include "tests/sim/bugs.h"
#define PLANTED(bug) bug_planted(bug)
#else
#define PLANTED(bug) 0
#endif

#endif
