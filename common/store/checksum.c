/* checksum.c - see checksum.h. Called by the store's owner thread (seal, apply) and by store_verify(); cannot fail. */
#include "common/store/checksum.h"

#include <stdbool.h>
#include <string.h>
#include <xxhash.h>

static const uint8_t zero_page[WAL_PAGE_SIZE];

static bool page_is_zero(const uint8_t *page)
{
	/* Nearly every page differs within its first bytes; the comparison with itself shifted by one is only paid for
	 * pages that are zero so far. */
	return page[0] == 0 && memcmp(page, page + 1, WAL_PAGE_SIZE - 1) == 0;
}

uint64_t checksum_page(uint32_t pgno, const uint8_t *page)
{
	if (page_is_zero(page))
		return 0;
	return XXH3_64bits_withSeed(page, WAL_PAGE_SIZE, pgno);
}

const uint8_t *checksum_zero_page(void)
{
	return zero_page;
}
