/* main.c - grizzly-supervisor: see supervisor/command_line.c. */
#include "supervisor/commands.h"

int main(int argc, char **argv)
{
	return command_line(argc, argv);
}
