/*
 * fuzz_wire.c - the decoder of every message that travels over NNG.
 *
 * The input is a message as it comes off a socket. What is refused says why. What is accepted is refused by every other
 * cluster and, if it is of our minor version, canonical: encoded again it is the same bytes, and no shorter piece of it is a
 * message too.
 */
#include <stdlib.h>
#include <string.h>

#include "common/wire/wire.h"
#include "tests/fuzz/fuzz.h"

static struct wire_msg msg, other; /* large */

static void check_accepted(const uint8_t *data, size_t size)
{
	struct buf again = {0};
	struct errmsg em = {0};
	uint8_t id[16];

	if (msg.head.minor == WIRE_MINOR) {
		wire_encode(&again, &msg);
		FUZZ_CHECK(!again.failed && again.len == size && memcmp(again.data, data, size) == 0);
		buf_fini(&again);
		FUZZ_CHECK(wire_decode(&other, data, size - 1, NULL, &em) == DB_INVALID);
	}
	memcpy(id, msg.head.cluster_id, sizeof(id));
	FUZZ_CHECK(wire_decode(&other, data, size, id, &em) == DB_OK);
	id[15] ^= 1;
	FUZZ_CHECK(wire_decode(&other, data, size, id, &em) == DB_INVALID && em.text[0] != '\0');
	FUZZ_CHECK(strcmp(wire_type_name(msg.head.type), "unknown") != 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct errmsg em = {0};
	enum db_err err = wire_decode(&msg, data, size, NULL, &em);

	if (err == DB_OK)
		check_accepted(data, size);
	else
		FUZZ_CHECK(err == DB_INVALID && em.err == err && em.text[0] != '\0');
	return 0;
}
