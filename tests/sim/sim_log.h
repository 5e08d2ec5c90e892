/*
 * sim_log.h - where the simulator's log.c sends the cores' log lines.
 */
#ifndef GRIZZLY_TESTS_SIM_SIM_LOG_H
#define GRIZZLY_TESTS_SIM_SIM_LOG_H

#include "tests/sim/world.h"

void sim_log_to(const struct world *w); /* its trace; NULL: nowhere */

#endif
