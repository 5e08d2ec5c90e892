/* result_shape.c - see result_shape.h. The row functions are the hottest code of a read. */
#include "common/query/result_shape.h"

#include <stdlib.h>
#include <xxhash.h>

#include "common/query/answer.h"
#include "common/query/number.h"

/* Declared types are folded to lower case, ASCII only, as SQLite compares them. */
static void put_type(struct buf *out, const char *type)
{
	size_t len = type == NULL ? 0 : strlen(type);
	size_t start = out->len + 1;
	size_t i;

	json_put_string(out, type, len);
	for (i = start; !out->failed && i < out->len; i++)
		if (out->data[i] >= 'A' && out->data[i] <= 'Z')
			out->data[i] = (uint8_t)(out->data[i] - 'A' + 'a');
}

bool result_shape_update(struct result_shape *shape, sqlite3_stmt *stmt)
{
	int reprepares = sqlite3_stmt_status(stmt, SQLITE_STMTSTATUS_REPREPARE, 0);
	int i;

	if (shape->made && shape->reprepares == reprepares)
		return true;
	result_shape_fini(shape);
	shape->columns = sqlite3_column_count(stmt);
	buf_puts(&shape->head, "\"columns\":[");
	for (i = 0; i < shape->columns; i++) {
		const char *name = sqlite3_column_name(stmt, i);

		if (name == NULL)
			return false;
		if (i > 0)
			buf_put_u8(&shape->head, ',');
		json_put_string(&shape->head, name, strlen(name));
	}
	buf_puts(&shape->head, "],\"types\":[");
	for (i = 0; i < shape->columns; i++) {
		if (i > 0)
			buf_put_u8(&shape->head, ',');
		put_type(&shape->head, sqlite3_column_decltype(stmt, i));
	}
	buf_puts(&shape->head, "],\"rows\":[");
	shape->reprepares = reprepares;
	shape->made = !shape->head.failed;
	return shape->made;
}

void result_shape_fini(struct result_shape *shape)
{
	buf_fini(&shape->head);
	buf_fini(&shape->keys);
	free(shape->key_ends);
	memset(shape, 0, sizeof(*shape));
}

/* The set of key names in use, open addressing; names live in the statement or in `made`. */
struct name_set {
	size_t mask;
	struct name_entry {
		char *name; /* owned; NULL: free slot */
		size_t len;
		uint64_t next_suffix;
		bool taken; /* some column has it as its key */
	} * entries;
};

static struct name_entry *name_find(struct name_set *set, const char *name, size_t len)
{
	size_t i = XXH3_64bits(name, len) & set->mask;

	while (set->entries[i].name != NULL &&
	       (set->entries[i].len != len || memcmp(set->entries[i].name, name, len) != 0))
		i = (i + 1) & set->mask;
	return &set->entries[i];
}

/* The entry of name, added when it is new; NULL: no memory. */
static struct name_entry *name_add(struct name_set *set, const char *name, size_t len)
{
	struct name_entry *e = name_find(set, name, len);

	if (e->name != NULL)
		return e;
	e->name = malloc(len + 1);
	if (e->name == NULL)
		return NULL;
	memcpy(e->name, name, len);
	e->name[len] = '\0';
	e->len = len;
	e->next_suffix = 1;
	return e;
}

static bool names_init(struct name_set *set, int columns, sqlite3_stmt *stmt)
{
	size_t size = 16;
	int i;

	while (size < (size_t)columns * 4) /* each column adds its name and perhaps one with a suffix */
		size *= 2;
	set->mask = size - 1;
	set->entries = calloc(size, sizeof(*set->entries));
	if (set->entries == NULL)
		return false;
	for (i = 0; i < columns; i++) {
		const char *name = sqlite3_column_name(stmt, i);

		if (name == NULL || name_add(set, name, strlen(name)) == NULL)
			return false;
	}
	return true;
}

static void names_fini(struct name_set *set)
{
	size_t i;

	for (i = 0; set->entries != NULL && i <= set->mask; i++)
		free(set->entries[i].name);
	free(set->entries);
}

/* Takes name itself for the first column called so, else the first free name:1, name:2, …; NULL: no memory. */
static const struct name_entry *name_take(struct name_set *set, const char *name)
{
	struct name_entry *e = name_find(set, name, strlen(name));
	const struct name_entry *taken = NULL;
	struct buf candidate = {0};

	if (!e->taken) {
		e->taken = true;
		return e;
	}
	do {
		buf_clear(&candidate);
		buf_put(&candidate, e->name, e->len);
		buf_put_u8(&candidate, ':');
		if (!buf_reserve(&candidate, NUMBER_TEXT_MAX))
			goto done;
		candidate.len += number_put_uint((char *)candidate.data + candidate.len, e->next_suffix++);
	} while (name_find(set, (char *)candidate.data, candidate.len)->name != NULL);
	taken = name_add(set, (char *)candidate.data, candidate.len);
done:
	buf_fini(&candidate);
	return taken;
}

bool result_shape_keys(struct result_shape *shape, sqlite3_stmt *stmt)
{
	struct name_set set = {0};
	bool ok = false;
	int i;

	if (shape->key_ends != NULL)
		return true;
	buf_clear(&shape->keys);
	shape->key_ends = calloc((size_t)shape->columns + 1, sizeof(size_t));
	if (shape->key_ends == NULL || !names_init(&set, shape->columns, stmt))
		goto done;
	for (i = 0; i < shape->columns; i++) {
		const char *name = sqlite3_column_name(stmt, i);
		const struct name_entry *e = name == NULL ? NULL : name_take(&set, name);

		if (e == NULL)
			goto done;
		json_put_string(&shape->keys, e->name, e->len);
		buf_put_u8(&shape->keys, ':');
		shape->key_ends[i] = shape->keys.len;
	}
	ok = !shape->keys.failed;
done:
	names_fini(&set);
	if (!ok) {
		free(shape->key_ends);
		shape->key_ends = NULL;
	}
	return ok;
}

static bool put_column(struct buf *out, sqlite3_stmt *stmt, int i)
{
	sqlite3_value *v = sqlite3_column_value(stmt, i); /* one look-up for what follows */
	const void *bytes;
	int len;

	switch (sqlite3_value_type(v)) {
	case SQLITE_INTEGER:
		json_put_int(out, sqlite3_value_int64(v));
		return true;
	case SQLITE_FLOAT:
		json_put_real(out, sqlite3_value_double(v));
		return true;
	case SQLITE_TEXT:
		bytes = sqlite3_value_text(v);
		if (bytes == NULL)
			return false;
		json_put_string(out, bytes, (size_t)sqlite3_value_bytes(v));
		return true;
	case SQLITE_BLOB:
		bytes = sqlite3_value_blob(v);
		len = sqlite3_value_bytes(v);
		if (bytes == NULL && len > 0)
			return false;
		json_put_blob(out, bytes, (size_t)len);
		return true;
	default:
		buf_put(out, "null", 4);
		return true;
	}
}

bool result_put_row(struct buf *out, const struct result_shape *shape, sqlite3_stmt *stmt)
{
	int i;

	buf_put_u8(out, '[');
	for (i = 0; i < shape->columns; i++) {
		if (i > 0)
			buf_put_u8(out, ',');
		if (!put_column(out, stmt, i))
			return false;
	}
	buf_put_u8(out, ']');
	return true;
}

bool result_put_object(struct buf *out, const struct result_shape *shape, sqlite3_stmt *stmt)
{
	size_t start = 0;
	int i;

	buf_put_u8(out, '{');
	for (i = 0; i < shape->columns; i++) {
		if (i > 0)
			buf_put_u8(out, ',');
		buf_put(out, shape->keys.data + start, shape->key_ends[i] - start);
		start = shape->key_ends[i];
		if (!put_column(out, stmt, i))
			return false;
	}
	buf_put_u8(out, '}');
	return true;
}
