/* standing_rules.c - the deciding half of standing.h, which the simulator shares. Pure, any thread. */
#include "common/base/planted.h"
#include "node/standing.h"

bool standing_counts(enum standing standing)
{
	return (standing != STANDING_REBUILD && standing != STANDING_WRONG) || PLANTED(BUG_REBUILDING_VOTES);
}

enum standing standing_after_snapshot(enum standing standing, uint64_t last_lsn, uint64_t snapshot_lsn)
{
	return standing == STANDING_WHOLE && snapshot_lsn >= last_lsn ? STANDING_WHOLE : STANDING_REBUILD;
}
