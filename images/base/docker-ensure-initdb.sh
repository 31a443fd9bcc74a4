#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Makes the database as docker-entrypoint.sh would, without starting the server afterwards.
# As docker-ensure-initdb.sh an existing database is fine; as docker-enforce-initdb.sh it is an error.
set -Eeo pipefail # no -u: the functions treat unset as empty

# shellcheck source=docker-entrypoint.sh
source /usr/local/bin/docker-entrypoint.sh

_ensure() {
	if [ "$#" -eq 0 ] || [ "$1" != postgres ]; then
		set -- postgres "$@"
	fi
	docker_setup_env
	docker_create_db_directories
	if [ "$(id -u)" = 0 ]; then
		exec gosu postgres "$0" "$@"
	fi
	local self="${0##*/}"
	if [ -z "$DATABASE_ALREADY_EXISTS" ]; then
		_pg_first_start "$@"
		return
	fi
	case "$self" in
		docker-enforce-initdb.sh)
			printf >&2 "%s: error: (unexpected) database found in '%s'!\n" "$self" "$PGDATA"
			exit 1
			;;
		*)
			printf >&2 "%s: note: database already initialized in '%s'!\n" "$self" "$PGDATA"
			;;
	esac
}

_ensure "$@"
