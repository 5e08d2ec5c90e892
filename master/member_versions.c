/* member_versions.c - see member_versions.h. */
#include "master/member_versions.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>

void member_versions_init(struct member_versions *v, const struct members *members)
{
	memset(v, 0, sizeof(*v));
	v->force = *members;
}

enum db_err member_versions_found(struct member_versions *v, const struct members *in_log, struct errmsg *em)
{
	v->in_log = *in_log;
	if (in_log->version <= v->force.version)
		return DB_OK;
	return errmsg_set(em, DB_INVALID,
			  "cannot be promoted: its log knows members of version %" PRIu64
			  ", the supervisor of %" PRIu64,
			  in_log->version, v->force.version);
}

void member_versions_on_ready(struct member_versions *v)
{
	if (v->in_log.version > v->committed.version)
		v->committed = v->in_log;
}

enum db_err member_versions_told(const struct member_versions *v, const struct members *members, bool *newer,
				 struct errmsg *em)
{
	*newer = members->version > v->force.version;
	if (members->version >= v->force.version)
		return DB_OK;
	return errmsg_set(em, DB_STALE_TERM, "members version %" PRIu64 " is in force, not %" PRIu64, v->force.version,
			  members->version);
}

void member_versions_set(struct member_versions *v, const struct members *members)
{
	assert(members->version >= v->force.version); /* (1) */
	v->force = *members;
}

bool member_versions_begin_write(struct member_versions *v)
{
	if (v->writing || v->committed.version >= v->force.version || v->in_log.version >= v->force.version)
		return false;
	v->written = v->force;
	v->writing = true;
	return true;
}

void member_versions_end_write(struct member_versions *v, bool committed)
{
	assert(v->writing);
	v->writing = false;
	if (committed)
		v->committed = v->written;
}
