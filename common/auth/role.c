/* role.c - see role.h. */
#include "common/auth/role.h"

#include <string.h>

static const char *const role_names[] = {"none", "read", "write", "admin"};

const char *auth_role_name(enum auth_role role)
{
	return role_names[role];
}

bool auth_role_parse(const char *text, enum auth_role *out)
{
	int role;

	for (role = AUTH_READ; role <= AUTH_ADMIN; role++) {
		if (strcmp(text, role_names[role]) != 0)
			continue;
		*out = (enum auth_role)role;
		return true;
	}
	return false;
}
