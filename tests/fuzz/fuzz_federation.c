/*
 * fuzz_federation.c - host:port@table in any text, and any bytes as another node's answer.
 *
 * The first byte chooses. Text: what the scan yields lies within the text and in order, and the text rewritten for the node
 * that has the tables holds no reference any more. Answer: fed whole and in pieces it comes to the same, and wherever it
 * breaks off, what was passed on and our end of it are JSON.
 */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "common/query/federation.h"
#include "common/remote/shipped_answer.h"
#include "tests/fuzz/fuzz.h"

/* ---- texts */

static void check_refs(const struct federation *f, size_t size)
{
	size_t i, last = 0;

	for (i = 0; i < f->ref_count; i++) {
		const struct federated_ref *ref = &f->refs[i];

		FUZZ_CHECK(ref->start >= last && ref->end > ref->start && ref->end <= size);
		FUZZ_CHECK(ref->table_len > 0 && strlen(ref->table) == ref->table_len);
		FUZZ_CHECK(strrchr(ref->address, ':') != NULL && strlen(ref->address) < sizeof(ref->address));
		FUZZ_CHECK(ref->statement < f->statement_count);
		last = ref->end;
	}
}

static void check_statements(const struct federation *f, size_t size)
{
	size_t i, refs = 0, last = 0;

	for (i = 0; i < f->statement_count; i++) {
		const struct federated_statement *s = &f->statements[i];

		FUZZ_CHECK(s->start >= last && s->end >= s->start && s->end <= size && s->body >= s->start);
		FUZZ_CHECK(s->first_ref == refs && (s->ref_count == 0 || s->verb != FEDERATED_OTHER));
		refs += s->ref_count;
		last = s->end;
	}
	FUZZ_CHECK(refs == f->ref_count);
	for (i = 0, last = 0; i < f->query_count; i++) {
		const struct federated_query *q = &f->queries[i];

		FUZZ_CHECK(q->start >= last && q->end >= q->start && q->end <= size && q->ref_count > 0);
		FUZZ_CHECK(q->first_ref + q->ref_count <= f->ref_count && q->statement < f->statement_count);
		last = q->end;
	}
}

static void fuzz_text(const uint8_t *data, size_t size)
{
	char *sql = malloc(size + 1); /* behind its end nothing may be read: the sanitizer sees */
	struct query_error error = {0};
	struct federation *f, *again;
	struct buf out = {0};

	FUZZ_CHECK(sql != NULL);
	memcpy(sql, data, size);
	sql[size] = '\0';
	if (memchr(sql, '\0', size) != NULL)
		goto done; /* query_request_parse() lets none through */
	if (federation_scan(&f, sql, size, &error) != QUERY_OK) {
		FUZZ_CHECK(f == NULL && error.code == QUERY_SQL_ERROR && error.message[0] != '\0');
		goto done;
	}
	if (f == NULL)
		goto done;
	check_refs(f, size);
	check_statements(f, size);
	federation_rewrite(&out, f, sql, 0, size, federation_put_local, NULL);
	buf_clear(&out);
	federation_rewrite(&out, f, sql, 0, size, federation_put_shipped, NULL);
	FUZZ_CHECK(federation_scan(&again, (char *)out.data, out.len, &error) == QUERY_OK && again == NULL);
	federation_free(f);
done:
	buf_fini(&out);
	free(sql);
}

/* ---- answers */

static enum db_err feed(struct shipped_answer *a, const uint8_t *data, size_t size, size_t step, struct buf *sent)
{
	struct errmsg em = {0};
	enum db_err err = DB_OK;
	const void *ready;
	size_t len;

	while (size > 0 && err == DB_OK) {
		len = step > 0 && step < size ? step : size;
		err = shipped_answer_feed(a, data, len, &em);
		data += len;
		size -= len;
		if (err == DB_OK) {
			ready = shipped_answer_ready(a, &len);
			buf_put(sent, ready, len);
			shipped_answer_sent(a, len);
		}
	}
	return err;
}

static bool is_plain(const struct buf *b)
{
	size_t i;

	for (i = 0; i < b->len; i++)
		if (b->data[i] < 0x20 || b->data[i] >= 0x7f || b->data[i] == '\\')
			return false;
	return true;
}

static void check_broken_off(struct shipped_answer *a, struct buf *sent)
{
	json_error_t why;
	const void *ready;
	size_t len;
	json_t *json;

	shipped_answer_break_off(a);
	ready = shipped_answer_ready(a, &len);
	buf_put(sent, ready, len);
	if (shipped_answer_has_members(a))
		buf_put_u8(sent, ',');
	buf_puts(sent, "\"status\":0}");
	/* Escapes, characters and sizes of numbers are passed on unseen: a client's parser judges them. */
	json = json_loadb((char *)sent->data, sent->len, JSON_ALLOW_NUL | JSON_DECODE_INT_AS_REAL, &why);
	FUZZ_CHECK(json != NULL || !is_plain(sent) || json_error_code(&why) == json_error_numeric_overflow);
	json_decref(json);
}

static void fuzz_answer(struct fuzz_in *in, bool ndjson)
{
	size_t step = 1 + in_u8(in) % 32u;
	struct shipped_answer *whole, *pieces;
	struct buf sent_whole = {0}, sent_pieces = {0};
	struct query_error error;
	struct errmsg em = {0};
	enum db_err err_whole, err_pieces;

	FUZZ_CHECK(shipped_answer_create(&whole, ndjson, false) == DB_OK);
	FUZZ_CHECK(shipped_answer_create(&pieces, ndjson, false) == DB_OK);
	if (!ndjson) {
		buf_puts(&sent_whole, "{");
		buf_puts(&sent_pieces, "{");
	}
	err_whole = feed(whole, in->p, in->left, 0, &sent_whole);
	err_pieces = feed(pieces, in->p, in->left, step, &sent_pieces);
	if (err_whole == DB_OK)
		err_whole = shipped_answer_end(whole, &em);
	if (err_pieces == DB_OK)
		err_pieces = shipped_answer_end(pieces, &em);
	FUZZ_CHECK(err_whole == err_pieces);
	if (err_whole == DB_OK) {
		FUZZ_CHECK(shipped_answer_rows(whole) == shipped_answer_rows(pieces));
		FUZZ_CHECK(shipped_answer_is_error(whole) == shipped_answer_is_error(pieces));
		shipped_answer_error(whole, &error);
		FUZZ_CHECK(error.message[0] != '\0' || shipped_answer_is_error(whole));
	}
	if (!ndjson)
		check_broken_off(pieces, &sent_pieces);
	shipped_answer_break_off(whole);
	shipped_answer_free(whole);
	shipped_answer_free(pieces);
	buf_fini(&sent_whole);
	buf_fini(&sent_pieces);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_in in = {data, size};
	unsigned choice = in_u8(&in) % 4u;

	if (choice < 2)
		fuzz_text(in.p, in.left);
	else
		fuzz_answer(&in, choice == 3);
	return 0;
}
