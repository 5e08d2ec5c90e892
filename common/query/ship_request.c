/* ship_request.c - see ship_request.h. */
#include "common/query/ship_request.h"

void ship_request_put_value(struct buf *out, const struct query_value *value)
{
	switch (value->type) {
	case QUERY_NULL:
		buf_puts(out, "null");
		break;
	case QUERY_INTEGER:
		json_put_int(out, value->integer);
		break;
	case QUERY_REAL:
		json_put_real(out, value->real);
		break;
	case QUERY_TEXT:
		json_put_string(out, value->data.bytes, value->data.len);
		break;
	case QUERY_BLOB:
		json_put_blob(out, value->data.bytes, value->data.len);
		break;
	}
}

static void put_params(struct buf *out, const struct query_statement *s)
{
	bool named = s->param_count > 0 && s->params[0].name != NULL;
	size_t i;

	if (s->param_count == 0)
		return;
	buf_puts(out, ",\"params\":");
	buf_puts(out, named ? "{" : "[");
	for (i = 0; i < s->param_count; i++) {
		if (i > 0)
			buf_put_u8(out, ',');
		if (named) {
			json_put_string(out, s->params[i].name, strlen(s->params[i].name));
			buf_put_u8(out, ':');
		}
		ship_request_put_value(out, &s->params[i].value);
	}
	buf_puts(out, named ? "}" : "]");
}

static void put_statement(struct buf *out, const struct query_statement *s, const struct federation *scan)
{
	struct buf sql = {0};

	buf_puts(out, "\"sql\":");
	if (scan == NULL) {
		json_put_string(out, s->sql, s->sql_len);
	} else {
		federation_rewrite(&sql, scan, s->sql, 0, s->sql_len, federation_put_shipped, NULL);
		json_put_string(out, (const char *)sql.data, sql.len);
	}
	out->failed = out->failed || sql.failed;
	buf_fini(&sql);
	put_params(out, s);
}

static void put_statements(struct buf *out, const struct federated_request *fr)
{
	size_t i;

	buf_puts(out, "\"statements\":[");
	for (i = 0; i < fr->request->statement_count; i++) {
		buf_puts(out, i > 0 ? ",{" : "{");
		put_statement(out, &fr->request->statements[i], fr->scans[i]);
		buf_put_u8(out, '}');
	}
	buf_put_u8(out, ']');
}

static void put_uint(struct buf *out, const char *key, uint64_t value)
{
	buf_printf(out, ",\"%s\":%llu", key, (unsigned long long)value);
}

void ship_request_put(struct buf *out, const struct federated_request *fr, uint64_t timeout_ms)
{
	static const char *const consistencies[] = {"linearizable", "session", "stale"};
	static const char *const formats[] = {"rows", "objects", "ndjson"};
	const struct query_request *r = fr->request;

	buf_put_u8(out, '{');
	if (r->from_statements)
		put_statements(out, fr);
	else
		put_statement(out, &r->statements[0], fr->scans[0]);
	buf_printf(out, ",\"consistency\":\"%s\",\"format\":\"%s\"", consistencies[r->consistency], formats[r->format]);
	put_uint(out, "timeout_ms", timeout_ms);
	if (r->min_lsn > 0)
		put_uint(out, "min_lsn", r->min_lsn);
	if (r->max_lag_ms != UINT64_MAX)
		put_uint(out, "max_lag_ms", r->max_lag_ms);
	if (r->request_id != NULL) {
		buf_puts(out, ",\"request_id\":");
		json_put_string(out, r->request_id, strlen(r->request_id));
	}
	buf_puts(out, "}");
}
