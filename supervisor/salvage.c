/*
 * salvage.c - `grizzly-supervisor salvage`: lists the salvaged tails in the data directory; needs no running supervisor.
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "supervisor/commands.h"
#include "supervisor/salvage_list.h"

static json_t *to_json(const struct salvage_file *f, unsigned node)
{
	char id[16];

	snprintf(id, sizeof(id), "node%u", node + 1);
	return json_pack("{s:s, s:s, s:s, s:s, s:s, s:b, s:b, s:I, s:I, s:I, s:I, s:I, s:I}", "node", id, "changes",
			 f->path, "records", f->raw, "time", f->time, "reason", f->reason, "certain", (int)f->certain,
			 "complete", (int)f->complete, "first_lsn", (json_int_t)f->first_lsn, "last_lsn",
			 (json_int_t)f->last_lsn, "schema_changes", (json_int_t)f->schema_changes, "inserts",
			 (json_int_t)f->inserts, "updates", (json_int_t)f->updates, "deletes", (json_int_t)f->deletes);
}

static void print(const struct salvage_file *f, unsigned node)
{
	char what[200];

	salvage_describe(f, what, sizeof(what));
	printf("node%u  %s  %s\n       %s\n", node + 1, f->time, f->path, what);
	if (f->reason[0] != '\0')
		printf("       %s\n", f->reason);
}

static enum db_err list_node(json_t *list, unsigned node, size_t *count, struct errmsg *em)
{
	struct salvage_files *files = malloc(sizeof(*files));
	enum db_err err = DB_OK;
	size_t i;

	if (files == NULL)
		return errmsg_set(em, DB_NOMEM, "out of memory");
	err = salvage_list(files, node, em);
	for (i = 0; err == DB_OK && i < files->count; i++) {
		if (list == NULL)
			print(&files->items[i], node);
		else if (json_array_append_new(list, to_json(&files->items[i], node)) != 0)
			err = errmsg_set(em, DB_NOMEM, "out of memory");
	}
	*count += err == DB_OK ? files->count : 0;
	free(files);
	return err;
}

static enum db_err print_json(json_t *list, struct errmsg *em)
{
	char *text = json_dumps(list, JSON_INDENT(2));

	if (text == NULL)
		return errmsg_set(em, DB_NOMEM, "out of memory");
	puts(text);
	free(text);
	return DB_OK;
}

enum exit_code command_salvage(const char *data_dir, bool json)
{
	json_t *list = json ? json_array() : NULL;
	struct errmsg em = {0};
	enum db_err err = datadir_enter(data_dir, false, &em);
	size_t count = 0;
	unsigned n;

	for (n = 0; err == DB_OK && n < CONFIG_NODES_MAX; n++)
		err = list_node(list, n, &count, &em);
	if (err == DB_OK && json)
		err = print_json(list, &em);
	else if (err == DB_OK && count == 0)
		printf("nothing was salvaged\n");
	else if (err == DB_OK)
		printf("\nOnce you have dealt with these changes, remove the files; nothing else ever does.\n");
	json_decref(list);
	if (err == DB_OK && fflush(stdout) == 0)
		return EXIT_OK;
	fprintf(stderr, "grizzly-supervisor: %s\n", err == DB_OK ? "cannot write the list" : em.text);
	return EXIT_FAILED;
}
