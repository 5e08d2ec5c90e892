/*
 * fake_node.h - a node as the supervisor sees one, without a database: a test double for tests of the supervisor.
 *
 * A test program copied to the names grizzly-master and grizzly-replica beside a grizzly-supervisor runs this.
 */
#ifndef GRIZZLY_TESTS_UNIT_FAKE_NODE_H
#define GRIZZLY_TESTS_UNIT_FAKE_NODE_H

#define FAKE_NODE_SLOW_MS 400

int fake_node_main(int argc, char **argv);

#endif
