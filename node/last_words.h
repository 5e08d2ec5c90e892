/*
 * last_words.h - why a node ends, left where its supervisor finds it.
 *
 * The reason goes to run/<id>.why; the supervisor reads it when the process is gone, shows it in status, and removes it.
 * Nothing of it is durable or needs to be.
 *
 * Also owns the process's handler of SIGBUS: pages of the base file and of the log are read through mappings, and a disk
 * that fails to deliver one shows as that signal on whichever thread reads. There is no way back from there into SQLite:
 * the handler says which file it was, leaves a mark beside the node's directory (D/<id>.unreadable, for node/readable.h
 * to look at when the node starts again), and ends the process with EXIT_CODE_READ. It calls async-signal-safe
 * functions only; what it needs is prepared by last_words_init() and never changed afterwards, hence the file statics.
 */
#ifndef GRIZZLY_NODE_LAST_WORDS_H
#define GRIZZLY_NODE_LAST_WORDS_H

/* Forgets what an earlier process of this node left, and installs the handler. Main thread, before any other. */
void last_words_init(const char *id);
void last_words_say(const char *text); /* one line; a later one replaces it */

#endif
