/* mesh.c - see mesh.h. */
#include "common/wire/mesh.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/members.h"
#include "common/wire/tunnel.h"

struct mesh {
	const struct cluster_config *config;
	unsigned node;
	struct tls_members *tls; /* NULL, like tunnels: TCP in the clear */
	struct tunnels *tunnels;
	struct tunnel_gate *gates[2]; /* the ports that are listened at: replication, acks */
};

struct mesh_way {
	struct pump *pump;
	struct tunnel_gate *gate; /* NULL: no TLS */
};

static void file_of(char out[TUNNEL_PATH_MAX], unsigned node, enum config_port which)
{
	assert(which != CONFIG_HTTP);
	snprintf(out, TUNNEL_PATH_MAX, "run/node%u.%s", node, which == CONFIG_ACKS ? "acks" : "replication");
}

enum db_err mesh_create(struct mesh **out, const struct cluster_config *config, unsigned node, struct errmsg *em)
{
	struct mesh *m = calloc(1, sizeof(*m));
	enum db_err err = DB_OK;

	*out = NULL;
	if (m == NULL)
		return errmsg_set(em, DB_NOMEM, "out of memory");
	m->config = config;
	m->node = node;
	if (config_has_tls(config)) {
		err = tls_members_create(&m->tls, config, em);
		if (err == DB_OK)
			err = tunnels_create(&m->tunnels, m->tls, em);
	}
	if (err != DB_OK) {
		mesh_free(m);
		return err;
	}
	*out = m;
	return DB_OK;
}

void mesh_free(struct mesh *m)
{
	if (m == NULL)
		return;
	tunnels_free(m->tunnels);
	tls_members_free(m->tls);
	free(m);
}

enum db_err mesh_reload(struct mesh *m, struct errmsg *em)
{
	return m->tls == NULL ? DB_OK : tls_members_reload(m->tls, m->config, em);
}

/* ---- listening */

/* Behind the file, which is there first: whoever looks for it finds it once the port answers. */
static enum db_err open_port(struct mesh *m, struct link_pull *link, enum config_port which, const char *address,
			     const char *path, struct errmsg *em)
{
	char url[LINK_URL_MAX];
	enum db_err err;

	if (m->tunnels != NULL)
		return tunnel_listen(&m->gates[which == CONFIG_ACKS], m->tunnels, address, path, em);
	err = link_tcp_url(url, address, em);
	return err == DB_OK ? link_pull_also(link, url, em) : err;
}

enum db_err mesh_listen(struct link_pull **out, struct mesh *m, enum config_port which, const char *address,
			link_message_fn on_message, void *arg, struct errmsg *em)
{
	char path[TUNNEL_PATH_MAX], url[LINK_URL_MAX];
	enum db_err err;

	*out = NULL;
	file_of(path, m->node, which);
	err = link_ipc_url(url, path, em);
	if (err == DB_OK)
		err = link_pull_create(out, url, on_message, arg, em);
	if (err != DB_OK)
		return err;
	err = open_port(m, *out, which, address, path, em);
	if (err != DB_OK) { /* no gate leads there */
		link_pull_free(*out);
		*out = NULL;
	}
	return err;
}

void mesh_unlisten(struct mesh *m)
{
	size_t i;

	for (i = 0; i < 2; i++) {
		tunnel_close(m->gates[i]);
		m->gates[i] = NULL;
	}
}

/* ---- the way to a peer */

/* "node1" and the like, off the wire. 0: it is none. */
static unsigned number_of(const char *peer)
{
	unsigned number = 0;
	char again[16];

	if (sscanf(peer, "node%2u", &number) != 1 || number < 1 || number > MEMBERS_MAX)
		return 0;
	snprintf(again, sizeof(again), "node%u", number);
	return strcmp(again, peer) == 0 ? number : 0;
}

/* Whether address is on our host, as far as the configuration tells. */
static bool is_local(const struct mesh *m, const char *address)
{
	const char *colon = strrchr(address, ':');
	char own[CONFIG_ADDRESS_MAX];
	size_t len;

	config_address(m->config, 1, own);
	len = (size_t)(strrchr(own, ':') - own);
	return colon != NULL && (size_t)(colon - address) == len && memcmp(address, own, len) == 0;
}

/* Where a link finds address: itself, or the file of a gate that carries to it. */
static enum db_err far_url(char out[LINK_URL_MAX], struct mesh_way *w, struct mesh *m, const char *address,
			   struct errmsg *em)
{
	char path[TUNNEL_PATH_MAX];
	enum db_err err = link_tcp_url(out, address, em); /* looks at what the address is made of, too */

	if (err != DB_OK || m->tunnels == NULL)
		return err;
	if (snprintf(path, sizeof(path), "run/node%u.tls.%s", m->node, address) >= (int)sizeof(path))
		return errmsg_set(em, DB_INVALID, "\"%s\" is too long for an address", address);
	err = link_ipc_url(out, path, em);
	return err == DB_OK ? tunnel_dial(&w->gate, m->tunnels, path, address, em) : err;
}

enum db_err mesh_way_open(struct mesh_way **out, struct pump **pump, struct mesh *m, const char *peer,
			  enum config_port which, const char *address, const struct pump_owner *owner,
			  struct errmsg *em)
{
	char path[TUNNEL_PATH_MAX], url[LINK_URL_MAX], near_url[LINK_URL_MAX] = "";
	struct mesh_way *w = NULL;
	unsigned node = number_of(peer);
	bool near = m->config->replication.local == REPLICATION_IPC && is_local(m, address);
	enum db_err err = DB_OK;

	*out = NULL;
	*pump = NULL;
	if (node == 0)
		return errmsg_set(em, DB_INVALID, "\"%s\" is no name of a node", peer);
	w = calloc(1, sizeof(*w));
	if (w == NULL)
		return errmsg_set(em, DB_NOMEM, "out of memory");
	if (near) {
		file_of(path, node, which);
		err = link_ipc_url(near_url, path, em);
	}
	if (err == DB_OK)
		err = far_url(url, w, m, address, em);
	if (err == DB_OK)
		err = pump_create(pump, url, near ? near_url : NULL, owner, em);
	w->pump = *pump;
	if (err != DB_OK) {
		mesh_way_close(w);
		*pump = NULL;
		return err;
	}
	*out = w;
	return DB_OK;
}

void mesh_way_close(struct mesh_way *w)
{
	if (w == NULL)
		return;
	pump_free(w->pump);
	tunnel_close(w->gate);
	free(w);
}
