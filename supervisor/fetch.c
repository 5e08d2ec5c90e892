/* fetch.c - see fetch.h. */
#include "supervisor/fetch.h"

#include <curl/curl.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define ERROR_BODY_MAX  ((size_t)4096)
#define HEADER_LINE_MAX 512

struct transfer {
	const struct fetch *f;
	CURL *curl;
	struct buf refusal; /* the body of an answer that is not 200 */
	struct errmsg own;  /* of on_body() */
	enum db_err err;
};

static long status_of(CURL *curl)
{
	long status = 0;

	curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
	return status;
}

static size_t on_header_line(char *bytes, size_t size, size_t count, void *arg)
{
	struct transfer *t = arg;
	char line[HEADER_LINE_MAX];
	size_t len = size * count;
	char *colon, *value;

	if (t->f->on_header == NULL || len >= sizeof(line))
		return len;
	memcpy(line, bytes, len);
	line[len] = '\0';
	line[strcspn(line, "\r\n")] = '\0';
	colon = strchr(line, ':');
	if (colon == NULL)
		return len;
	*colon = '\0';
	value = colon + 1 + strspn(colon + 1, " \t");
	t->f->on_header(t->f->arg, line, value);
	return len;
}

static size_t on_bytes(char *bytes, size_t size, size_t count, void *arg)
{
	struct transfer *t = arg;
	size_t len = size * count;

	if (status_of(t->curl) != 200) {
		if (t->refusal.len + len <= ERROR_BODY_MAX)
			buf_put(&t->refusal, bytes, len);
		return len;
	}
	t->err = t->f->on_body(t->f->arg, bytes, len, &t->own);
	return t->err == DB_OK ? len : 0; /* fewer than came: libcurl gives up */
}

static enum db_err judge(struct transfer *t, CURLcode code, struct errmsg *em)
{
	const char *address = t->f->address;

	if (t->err != DB_OK)
		return errmsg_set(em, t->err, "%s", t->own.text);
	switch (code) {
	case CURLE_OK:
		break;
	case CURLE_COULDNT_CONNECT:
	case CURLE_COULDNT_RESOLVE_HOST:
		return errmsg_set(em, DB_UNAVAILABLE, "no connection to %s: %s", address, curl_easy_strerror(code));
	case CURLE_OUT_OF_MEMORY:
		return errmsg_set(em, DB_NOMEM, "out of memory");
	default:
		return errmsg_set(em, DB_CLOSED, "the connection to %s broke: %s", address, curl_easy_strerror(code));
	}
	if (status_of(t->curl) == 200)
		return DB_OK;
	return errmsg_set(em, DB_INVALID, "%s answers %ld: %.*s", address, status_of(t->curl),
			  (int)(t->refusal.len < 300 ? t->refusal.len : 300),
			  t->refusal.data == NULL ? "" : (const char *)t->refusal.data);
}

static enum db_err set_options(struct transfer *t, const char *url, struct curl_slist *headers)
{
	CURL *curl = t->curl;
	bool ok = true;

	ok = ok && curl_easy_setopt(curl, CURLOPT_URL, url) == CURLE_OK;
	ok = ok && client_tls_apply(curl, t->f->tls);
	ok = ok && curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers) == CURLE_OK;
	ok = ok && curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L) == CURLE_OK;
	ok = ok && curl_easy_setopt(curl, CURLOPT_PROXY, "") == CURLE_OK;
	ok = ok && curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS, FETCH_CONNECT_TIMEOUT_MS) == CURLE_OK;
	ok = ok && curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, t->f->timeout_ms) == CURLE_OK;
	ok = ok && curl_easy_setopt(curl, CURLOPT_LOW_SPEED_LIMIT, 1L) == CURLE_OK;
	ok = ok && curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME, FETCH_STALL_S) == CURLE_OK;
	ok = ok && curl_easy_setopt(curl, CURLOPT_BUFFERSIZE, 262144L) == CURLE_OK;
	ok = ok && curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, on_header_line) == CURLE_OK;
	ok = ok && curl_easy_setopt(curl, CURLOPT_HEADERDATA, t) == CURLE_OK;
	ok = ok && curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_bytes) == CURLE_OK;
	ok = ok && curl_easy_setopt(curl, CURLOPT_WRITEDATA, t) == CURLE_OK;
	return ok ? DB_OK : DB_NOMEM;
}

static struct curl_slist *make_headers(const char *token)
{
	char line[sizeof("Authorization: Bearer ") + 256];

	snprintf(line, sizeof(line), "Authorization: Bearer %s", token);
	return curl_slist_append(NULL, line);
}

enum db_err fetch_get(const struct fetch *f, struct errmsg *em)
{
	struct transfer t = {.f = f};
	struct curl_slist *headers = NULL;
	char url[256];
	enum db_err err = DB_NOMEM;

	if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
		return errmsg_set(em, DB_NOMEM, "libcurl cannot be initialized");
	snprintf(url, sizeof(url), "%s://%s%s", client_tls_scheme(f->tls), f->address, f->path);
	t.curl = curl_easy_init();
	headers = make_headers(f->token);
	if (t.curl != NULL && headers != NULL)
		err = set_options(&t, url, headers);
	if (err == DB_OK)
		err = judge(&t, curl_easy_perform(t.curl), em);
	else
		errmsg_set(em, err, "out of memory");
	curl_slist_free_all(headers);
	curl_easy_cleanup(t.curl);
	buf_fini(&t.refusal);
	curl_global_cleanup();
	return err;
}

struct text_target {
	struct buf *out;
	size_t max;
};

static enum db_err put_text(void *arg, const void *bytes, size_t len, struct errmsg *em)
{
	struct text_target *target = arg;

	if (target->out->len + len > target->max)
		return errmsg_set(em, DB_TOO_LARGE, "the answer is longer than %zu bytes", target->max);
	buf_put(target->out, bytes, len);
	return target->out->failed ? errmsg_set(em, DB_NOMEM, "out of memory") : DB_OK;
}

enum db_err fetch_text(const struct fetch *f, size_t max, struct buf *out, struct errmsg *em)
{
	struct text_target target = {out, max};
	struct fetch whole = *f;

	whole.on_header = NULL;
	whole.on_body = put_text;
	whole.arg = &target;
	return fetch_get(&whole, em);
}
