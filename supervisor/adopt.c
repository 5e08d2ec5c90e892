/* adopt.c - see adopt.h. */
#include "supervisor/adopt.h"

#include <stdio.h>
#include <string.h>

#include "common/base/fdpass.h"
#include "common/base/log.h"
#include "supervisor/datadir.h"

static void load_roster(struct roster *r)
{
	struct errmsg em = {0};
	char boot_id[64];
	enum db_err err = roster_load(r, DATADIR_ROSTER, &em);

	if (err != DB_OK && err != DB_NOTFOUND)
		log_warn("running nodes are looked for by their sockets alone: %s", em.text);
	if (err != DB_OK)
		return;
	if (launcher_boot_id(boot_id, &em) != DB_OK || strcmp(boot_id, r->boot_id) != 0)
		memset(r, 0, sizeof(*r)); /* of before the host was started */
}

bool adopt_stranger(unsigned n, struct process *out)
{
	char path[64];
	pid_t pid;

	*out = PROCESS_NONE;
	snprintf(path, sizeof(path), "run/node%u.fd", n + 1);
	return fdpass_owner(path, &pid, NULL) == DB_OK && process_adopt(out, pid, 0, NULL) == DB_OK;
}

unsigned adopt_running(struct process *processes, struct roster *roster)
{
	unsigned count = 0;
	unsigned n;

	load_roster(roster);
	for (n = 0; n < CONFIG_NODES_MAX; n++) {
		const struct roster_node *recorded = &roster->nodes[n];
		bool known = n < roster->node_count && recorded->pid > 0;

		if (!known || process_adopt(&processes[n], recorded->pid, recorded->start_ticks, NULL) != DB_OK) {
			roster->nodes[n].answered = false;
			if (!adopt_stranger(n, &processes[n]))
				continue;
		}
		count++;
	}
	return count;
}

enum db_err adopt_check_surplus(const struct process *processes, const struct cluster_config *config,
				const struct members *members, struct errmsg *em)
{
	unsigned n;

	for (n = members->version > 0 ? CONFIG_NODES_MAX : config_node_count(config); n < CONFIG_NODES_MAX; n++)
		if (processes[n].pidfd >= 0)
			return errmsg_set(
			    em, DB_INVALID,
			    "node%u runs (pid %d), but \"replicas\" in \"%s\" allows %u: stop the cluster first", n + 1,
			    (int)processes[n].pid, DATADIR_CONFIG, config->replicas);
	return DB_OK;
}
