/* answer.c - see answer.h: the public codes and the fixed parts of an answer. Only memory can be short: out->failed. */
#include "common/query/answer.h"

#include <stdarg.h>
#include <stdio.h>

#include "common/query/number.h"

const char *query_code_name(enum query_code code)
{
	switch (code) {
	case QUERY_OK:
		return "OK";
#define X(name, status)                                                                                                \
	case QUERY_##name:                                                                                             \
		return #name;
		QUERY_CODE_LIST(X)
#undef X
	}
	return "INTERNAL";
}

int query_code_http_status(enum query_code code)
{
	switch (code) {
	case QUERY_OK:
		return 200;
#define X(name, status)                                                                                                \
	case QUERY_##name:                                                                                             \
		return status;
		QUERY_CODE_LIST(X)
#undef X
	}
	return 500;
}

enum query_code query_error_set(struct query_error *error, enum query_code code, const char *fmt, ...)
{
	va_list ap;

	error->code = code;
	error->statement = -1;
	va_start(ap, fmt);
	vsnprintf(error->message, sizeof(error->message), fmt, ap);
	va_end(ap);
	return code;
}

void answer_put_error(struct buf *out, const struct query_error *error)
{
	buf_puts(out, "{");
	answer_put_error_fields(out, error);
	buf_puts(out, "}\n");
}

void answer_put_error_fields(struct buf *out, const struct query_error *error)
{
	buf_puts(out, "\"status\":\"error\",\"code\":\"");
	buf_puts(out, query_code_name(error->code));
	buf_puts(out, "\",\"message\":");
	json_put_string(out, error->message, strnlen(error->message, sizeof(error->message)));
	if (error->statement >= 0) {
		buf_puts(out, ",\"statement\":");
		json_put_int(out, error->statement);
	}
}

/* Microseconds as milliseconds with three decimals. */
static void put_elapsed(struct buf *out, uint64_t elapsed_us)
{
	uint64_t fraction = elapsed_us % 1000;
	uint8_t *at;

	if (!buf_reserve(out, NUMBER_TEXT_MAX + 4))
		return;
	at = out->data + out->len;
	at += number_put_uint((char *)at, elapsed_us / 1000);
	*at++ = '.';
	*at++ = (uint8_t)('0' + fraction / 100);
	*at++ = (uint8_t)('0' + fraction / 10 % 10);
	*at++ = (uint8_t)('0' + fraction % 10);
	out->len = (size_t)(at - out->data);
}

void answer_put_trailer_fields(struct buf *out, uint64_t lsn, const char *node, uint64_t elapsed_us)
{
	buf_puts(out, ",\"lsn\":");
	if (buf_reserve(out, NUMBER_TEXT_MAX))
		out->len += number_put_uint((char *)out->data + out->len, lsn);
	buf_puts(out, ",\"node\":");
	json_put_string(out, node, strlen(node));
	buf_puts(out, ",\"time_ms\":");
	put_elapsed(out, elapsed_us);
}

void answer_put_trailer(struct buf *out, uint64_t lsn, const char *node, uint64_t elapsed_us)
{
	answer_put_trailer_fields(out, lsn, node, elapsed_us);
	buf_puts(out, "}\n");
}
