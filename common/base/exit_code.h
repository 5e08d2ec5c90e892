/*
 * exit_code.h - how a node's process ends, in numbers: for its supervisor and for whoever starts it by hand.
 *
 * The words go to its log and, for the supervisor, to a file (node/last_words.h).
 */
#ifndef GRIZZLY_COMMON_BASE_EXIT_CODE_H
#define GRIZZLY_COMMON_BASE_EXIT_CODE_H

enum exit_code {
	EXIT_CODE_DONE = 0,
	EXIT_CODE_FAILED = 1,
	EXIT_CODE_CONFIG = 2, /* wrong options or configuration: trying again will not help */
	EXIT_CODE_LOG = 4,    /* its log cannot be written or synced any more */
	EXIT_CODE_READ = 5,   /* a page of its files could not be read */
};

#endif
