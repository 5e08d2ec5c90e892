/* addresses.c - see addresses.h. Chains in a table of fixed size: connections, and so addresses, are some thousands. */
#include "common/http/addresses.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "common/auth/throttle.h"

#define CHAINS 4096u

struct http_address {
	struct http_address *next;
	struct throttle_address key;
	atomic_uint connections; /* written under the table's lock */
};

struct http_addresses {
	pthread_mutex_t lock; /* guards the chains */
	uint64_t seed;
	struct http_address *chains[CHAINS];
};

struct http_addresses *http_addresses_create(uint64_t seed)
{
	struct http_addresses *t = calloc(1, sizeof(*t));

	if (t == NULL)
		return NULL;
	t->seed = seed;
	pthread_mutex_init(&t->lock, NULL);
	return t;
}

void http_addresses_free(struct http_addresses *t)
{
	if (t == NULL)
		return;
	pthread_mutex_destroy(&t->lock);
	free(t);
}

static struct http_address **place_of(struct http_addresses *t, const struct throttle_address *key)
{
	struct http_address **at = &t->chains[XXH3_64bits_withSeed(key->bytes, sizeof(key->bytes), t->seed) % CHAINS];

	while (*at != NULL && memcmp((*at)->key.bytes, key->bytes, sizeof(key->bytes)) != 0)
		at = &(*at)->next;
	return at;
}

struct http_address *http_addresses_enter(struct http_addresses *t, const struct sockaddr *address)
{
	struct http_address **at, *a;
	struct throttle_address key;

	if (!throttle_address_of(&key, address))
		return NULL;
	pthread_mutex_lock(&t->lock);
	at = place_of(t, &key);
	if (*at == NULL) {
		*at = calloc(1, sizeof(**at));
		if (*at != NULL)
			(*at)->key = key;
	}
	a = *at;
	if (a != NULL)
		atomic_fetch_add(&a->connections, 1);
	pthread_mutex_unlock(&t->lock);
	return a;
}

void http_addresses_leave(struct http_addresses *t, struct http_address *a)
{
	struct http_address **at;

	if (a == NULL)
		return;
	pthread_mutex_lock(&t->lock);
	if (atomic_fetch_sub(&a->connections, 1) == 1) {
		at = place_of(t, &a->key);
		*at = a->next;
		free(a);
	}
	pthread_mutex_unlock(&t->lock);
}

unsigned http_address_connections(const struct http_address *a)
{
	return a == NULL ? 0 : atomic_load(&a->connections);
}
