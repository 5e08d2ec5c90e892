/*
 * link_priv.h - what the files of the link module share; nobody else includes it.
 */
#ifndef GRIZZLY_COMMON_WIRE_LINK_PRIV_H
#define GRIZZLY_COMMON_WIRE_LINK_PRIV_H

#include <pthread.h>
#include <stdatomic.h>

#include "common/wire/link.h"

#define LINK_RECONNECT_MIN_MS 5
#define LINK_RECONNECT_MAX_MS 250
#define LINK_STALL_MS         1000 /* a dialer that counts nothing for so long, unconnected, after a failure is dead */

/* NNG's counters of one dialer or listener. */
struct link_tally {
	uint64_t pipes;    /* connections it has now */
	uint64_t failures; /* NNG's "other": those that may have been its end among them, see link.c */
	uint64_t events;   /* all that it ever counted; a dialer that is alive and unconnected keeps counting */
};

/* One connection of a listening socket. */
struct link_seat {
	uint32_t pipe_id;  /* 0: free */
	bool spoke;        /* it has brought something of use */
	uint64_t since_ms; /* the last time it did; or when it came */
};

/* Keeps a REP socket listening, see link_door.c. Embedded. */
struct link_door {
	nng_socket sock;
	nng_listener listener;  /* the thread's, once there is one, as the next three are */
	bool listening;         /* listener is one */
	bool logged;            /* that it cannot listen */
	uint64_t failures;      /* as counted when it last proved that it accepts */
	atomic_int listener_id; /* for admit(), before the listener is started */
	atomic_uint arrivals;   /* connections ever */
	char url[LINK_URL_MAX];
	pthread_mutex_t seat_lock;
	struct link_seat seats[LINK_PIPES_MAX]; /* under seat_lock */
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	bool closing; /* under lock */
};

/* An error of NNG in our words; 0 is DB_OK. */
enum db_err link_err(int rv);
/* Fills em with "<doing> <url>: <NNG's text>" and returns link_err(rv). */
enum db_err link_error(struct errmsg *em, int rv, const char *doing, const char *url);

bool link_url_is_tcp(const char *url);
bool link_url_is_ipc(const char *url);

/* kind: "listener" or "dialer". False: no memory, no such thing, or an NNG built without statistics. */
bool link_tally_read(struct link_tally *out, const char *kind, int id);

/* Options that every socket of ours has: message limit, reconnect times. */
enum db_err link_socket_options(nng_socket sock, const char *url, struct errmsg *em);

/* Connects sock to url; wait: DB_UNAVAILABLE when the first attempt fails, else it goes on in the background. */
enum db_err link_dial(nng_dialer *dialer, nng_socket sock, const char *url, bool wait, struct errmsg *em);
/* For a dialer that was to connect in the background. True: it has given up, as far as one can tell, and has to be
 * replaced. To be asked every LINK_STALL_MS, or less often; before is zeroed at first and changes with each call. */
bool link_dialer_stalled(nng_dialer dialer, struct link_tally *before);

/* Listens, keeping LINK_PIPES_MAX connections, and goes on listening until link_unlisten(). *port is the TCP port
 * bound, 0 for other transports. door lives until the socket is closed. DB_BUSY: the address is in use. On error there
 * is nothing to undo but to close the socket. */
enum db_err link_listen(struct link_door *door, nng_socket sock, const char *url, uint16_t *port, struct errmsg *em);
/* Before the socket is closed. Takes milliseconds; the connections stay. */
void link_unlisten(struct link_door *door);
/* After the socket was closed. */
void link_door_fini(struct link_door *door);
/* The connection of msg has brought something of use: it is not the first to go when seats are short. */
void link_door_heard(struct link_door *door, nng_pipe pipe);

/* First in whatever NNG calls: its threads block every signal, and a page of a mapped file that the disk does not deliver
 * is then the end of the process without a word (node/last_words.h). Threads started from there inherit it. */
void link_admit_faults(void);

#endif
