/* join.c - see join.h. */
#include "master/join.h"

/* The last LSN of entry i. */
static uint64_t term_end(const struct join_log *log, size_t i)
{
	return i + 1 < log->term_count ? log->terms[i + 1].lsn - 1 : log->last_lsn;
}

bool join_find(const struct join_log *master, const struct join_log *replica, uint64_t *lsn)
{
	size_t m = master->term_count;
	size_t r = replica->term_count;
	uint64_t master_end, replica_end;

	if (replica->last_lsn == 0) {
		*lsn = 0;
		return true;
	}
	while (m > 0 && r > 0) {
		if (master->terms[m - 1].term > replica->terms[r - 1].term) {
			m--;
		} else if (master->terms[m - 1].term < replica->terms[r - 1].term) {
			r--;
		} else {
			master_end = term_end(master, m - 1);
			replica_end = term_end(replica, r - 1);
			*lsn = master_end < replica_end ? master_end : replica_end;
			return true;
		}
	}
	return false;
}
