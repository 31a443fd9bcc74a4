#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Entrypoint of the local base images: PostgreSQL in a container, with the contract of the official image (its
# environment variables, init directory, function names and messages), written from that contract.
# It is safe to source this file: sourcing defines functions and runs nothing.
set -Eeo pipefail

# file_env NAME [DEFAULT]: exports NAME from itself, from the file that NAME_FILE names, or from DEFAULT.
# Setting both is an error, because nobody could say which one wins.
file_env() {
	local name="$1" default="${2:-}"
	local file_name="${name}_FILE"
	local value="$default"
	if [ -n "${!name:-}" ] && [ -n "${!file_name:-}" ]; then
		printf >&2 'error: both %s and %s are set (but are exclusive)\n' "$name" "$file_name"
		exit 1
	fi
	if [ -n "${!name:-}" ]; then
		value="${!name}"
	elif [ -n "${!file_name:-}" ]; then
		value="$(<"${!file_name}")"
	fi
	export "$name"="$value"
	unset "$file_name"
}

# _is_sourced tells "source docker-entrypoint.sh" from running it.
_is_sourced() {
	[ "${BASH_SOURCE[0]}" != "$0" ]
}

# docker_create_db_directories makes the directories and, as root, hands them to the postgres user. Only the owner is
# changed, never the group.
docker_create_db_directories() {
	local uid
	uid="$(id -u)"

	mkdir -p "$PGDATA"
	chmod 00700 "$PGDATA" || :
	mkdir -p /var/run/postgresql || :
	chmod 03775 /var/run/postgresql || :

	if [ -n "${POSTGRES_INITDB_WALDIR:-}" ]; then
		mkdir -p "$POSTGRES_INITDB_WALDIR"
		if [ "$uid" = 0 ]; then
			find "$POSTGRES_INITDB_WALDIR" '!' -user postgres -exec chown postgres '{}' +
		fi
		chmod 700 "$POSTGRES_INITDB_WALDIR"
	fi

	if [ "$uid" = 0 ]; then
		find "$PGDATA" '!' -user postgres -exec chown postgres '{}' +
		find /var/run/postgresql '!' -user postgres -exec chown postgres '{}' +
	fi
}

# docker_init_database_dir [ARGS] runs initdb. A user id that no passwd file knows (--user 1000) gets a temporary
# passwd through nss_wrapper, because initdb insists on a name.
docker_init_database_dir() {
	local uid gid lib
	uid="$(id -u)"
	if ! getent passwd "$uid" >/dev/null 2>&1; then
		gid="$(id -g)"
		for lib in /usr/lib/*/libnss_wrapper.so /usr/lib/libnss_wrapper.so; do
			[ -s "$lib" ] || continue
			NSS_WRAPPER_PASSWD="$(mktemp)"
			NSS_WRAPPER_GROUP="$(mktemp)"
			export LD_PRELOAD="$lib" NSS_WRAPPER_PASSWD NSS_WRAPPER_GROUP
			printf 'postgres:x:%s:%s:PostgreSQL:%s:/bin/false\n' "$uid" "$gid" "$PGDATA" >"$NSS_WRAPPER_PASSWD"
			printf 'postgres:x:%s:\n' "$gid" >"$NSS_WRAPPER_GROUP"
			break
		done
	fi

	if [ -n "${POSTGRES_INITDB_WALDIR:-}" ]; then
		set -- --waldir "$POSTGRES_INITDB_WALDIR" "$@"
	fi

	# eval: POSTGRES_INITDB_ARGS is shell text, so that quoted arguments work.
	eval 'initdb --username="$POSTGRES_USER" --pwfile=<(printf "%s\n" "$POSTGRES_PASSWORD") '"${POSTGRES_INITDB_ARGS:-}"' "$@"'

	if [ -n "${NSS_WRAPPER_PASSWD:-}" ]; then
		rm -f "$NSS_WRAPPER_PASSWD" "$NSS_WRAPPER_GROUP"
		unset LD_PRELOAD NSS_WRAPPER_PASSWD NSS_WRAPPER_GROUP
	fi
}

# docker_verify_minimum_env refuses to make a database that nobody or everybody could log in to.
docker_verify_minimum_env() {
	if [ -z "$POSTGRES_PASSWORD" ] && [ "${POSTGRES_HOST_AUTH_METHOD:-}" != trust ]; then
		cat >&2 <<-'EOM'
			Error: Database is uninitialized and superuser password is not specified.
			       Set POSTGRES_PASSWORD (or POSTGRES_PASSWORD_FILE) to a password for the
			       superuser, for example:

			         docker run -e POSTGRES_PASSWORD=... IMAGE

			       POSTGRES_HOST_AUTH_METHOD=trust lets everybody in without a password
			       instead. That is for throw-away databases only.
		EOM
		exit 1
	fi
	if [ "${POSTGRES_HOST_AUTH_METHOD:-}" = trust ]; then
		cat >&2 <<-'EOM'
			********************************************************************************
			WARNING: POSTGRES_HOST_AUTH_METHOD has been set to "trust".
			         Whoever can reach the port of this server is its superuser and needs no
			         password, whether or not POSTGRES_PASSWORD is set.
			         Every other container on this machine usually can.
			********************************************************************************
		EOM
	fi
}

# docker_error_old_databases stops a first start that would silently ignore data in the layout of older images.
docker_error_old_databases() {
	[ "${#OLD_DATABASES[@]}" -gt 0 ] || return 0
	{
		printf 'Error: in 18+, these Docker images are configured to store database data in a\n'
		printf '       directory named after the major version (PGDATA is %s).\n' "$PGDATA"
		printf '\n       Data of an older layout, or a volume that would stay unused, was found in:\n'
		printf '         %s\n' "${OLD_DATABASES[@]}"
		printf '\n       Mount one volume at /var/lib/postgresql and move or upgrade the data, or set\n'
		printf '       PGDATA to the directory that holds it.\n'
	} >&2
	exit 1
}

# docker_process_init_files FILE...: runs, sources or feeds each file, by its kind.
docker_process_init_files() {
	# The array is for sourced scripts, which expect it.
	psql=(docker_process_sql)

	printf '\n'
	local f
	for f; do
		case "$f" in
			*.sh)
				if [ -x "$f" ]; then
					printf '%s: running %s\n' "$0" "$f"
					"$f"
				else
					printf '%s: sourcing %s\n' "$0" "$f"
					# shellcheck source=/dev/null
					. "$f"
				fi
				;;
			*.sql)
				printf '%s: running %s\n' "$0" "$f"
				docker_process_sql -f "$f"
				printf '\n'
				;;
			*.sql.gz)
				printf '%s: running %s\n' "$0" "$f"
				gunzip -c "$f" | docker_process_sql
				printf '\n'
				;;
			*.sql.xz)
				printf '%s: running %s\n' "$0" "$f"
				xzcat "$f" | docker_process_sql
				printf '\n'
				;;
			*.sql.zst)
				printf '%s: running %s\n' "$0" "$f"
				zstd -dc "$f" | docker_process_sql
				printf '\n'
				;;
			*) printf '%s: ignoring %s\n' "$0" "$f" ;;
		esac
		printf '\n'
	done
}

# docker_process_sql [ARGS]: psql on the temporary server; a stray PGHOST of the container must not lead it elsewhere.
docker_process_sql() {
	local run=(psql -v ON_ERROR_STOP=1 --username "$POSTGRES_USER" --no-password --no-psqlrc)
	if [ -n "$POSTGRES_DB" ]; then
		run+=(--dbname "$POSTGRES_DB")
	fi
	PGHOST='' PGHOSTADDR='' "${run[@]}" "$@"
}

# docker_setup_db creates POSTGRES_DB unless it is there.
docker_setup_db() {
	local found
	found="$(
		POSTGRES_DB='' docker_process_sql --dbname postgres --set db="$POSTGRES_DB" --tuples-only <<-'EOSQL'
			SELECT 1 FROM pg_database WHERE datname = :'db' ;
		EOSQL
	)"
	if [ -z "$found" ]; then
		POSTGRES_DB='' docker_process_sql --dbname postgres --set db="$POSTGRES_DB" <<-'EOSQL'
			CREATE DATABASE :"db" ;
		EOSQL
		printf '\n'
	fi
}

# docker_setup_env reads the environment, and says whether there is a database already and where an old one lies.
docker_setup_env() {
	file_env POSTGRES_PASSWORD
	file_env POSTGRES_USER postgres
	file_env POSTGRES_DB "$POSTGRES_USER"
	file_env POSTGRES_INITDB_ARGS
	: "${POSTGRES_HOST_AUTH_METHOD:=}"

	declare -g DATABASE_ALREADY_EXISTS=''
	declare -ga OLD_DATABASES=()
	if [ -s "$PGDATA/PG_VERSION" ]; then
		DATABASE_ALREADY_EXISTS=true
		return 0
	fi
	if [ "$PGDATA" != "/var/lib/postgresql/$PG_MAJOR/docker" ]; then
		return 0
	fi
	local d
	for d in /var/lib/postgresql /var/lib/postgresql/data /var/lib/postgresql/*/docker; do
		if [ -s "$d/PG_VERSION" ]; then
			OLD_DATABASES+=("$d")
		fi
	done
	if [ "${#OLD_DATABASES[@]}" -eq 0 ] && [ "$PG_MAJOR" -ge 18 ] && mountpoint -q /var/lib/postgresql/data; then
		OLD_DATABASES+=('/var/lib/postgresql/data (unused mount/volume)')
	fi
}

# pg_setup_hba_conf [ARGS] lets remote clients in, by the method that the stored passwords allow.
pg_setup_hba_conf() {
	if [ "${1:-}" = postgres ]; then
		shift
	fi
	local method
	method="$(postgres -C password_encryption "$@")"
	: "${POSTGRES_HOST_AUTH_METHOD:=$method}"
	{
		printf '\n'
		if [ "$POSTGRES_HOST_AUTH_METHOD" = trust ]; then
			printf '# warning trust is enabled for all connections\n'
			printf '# see https://www.postgresql.org/docs/%s/auth-trust.html\n' "$PG_MAJOR"
		fi
		printf 'host all all all %s\n' "$POSTGRES_HOST_AUTH_METHOD"
	} >>"$PGDATA/pg_hba.conf"
}

# docker_temp_server_start [ARGS]: a server for the init scripts, reachable through the Unix socket only.
docker_temp_server_start() {
	if [ "${1:-}" = postgres ]; then
		shift
	fi
	set -- "$@" -c listen_addresses='' -p "${PGPORT:-5432}"
	# NOTIFY_SOCKET: an init system must hear of the real server only.
	NOTIFY_SOCKET='' PGUSER="${PGUSER:-$POSTGRES_USER}" \
		pg_ctl -D "$PGDATA" -o "$(printf '%q ' "$@")" -w start
}

# docker_temp_server_stop stops it again.
docker_temp_server_stop() {
	PGUSER="${PGUSER:-postgres}" pg_ctl -D "$PGDATA" -m fast -w stop
}

# _pg_want_help [ARGS]: is there an argument that makes postgres print something and exit?
_pg_want_help() {
	local arg
	for arg; do
		case "$arg" in
			-'?' | --help | --describe-config | -V | --version) return 0 ;;
		esac
	done
	return 1
}

# _pg_first_start [ARGS] makes the database: initdb, pg_hba.conf, database, init files.
_pg_first_start() {
	docker_verify_minimum_env
	docker_error_old_databases

	# An unreadable directory must fail before there is half a database.
	ls /docker-entrypoint-initdb.d/ >/dev/null

	docker_init_database_dir
	pg_setup_hba_conf "$@"

	# Only for the commands below; the server itself must not see it.
	export PGPASSWORD="${PGPASSWORD:-$POSTGRES_PASSWORD}"
	docker_temp_server_start "$@"
	docker_setup_db
	docker_process_init_files /docker-entrypoint-initdb.d/*
	docker_temp_server_stop
	unset PGPASSWORD

	printf '\nPostgreSQL init process complete; ready for start up.\n\n'
}

_main() {
	if [ "${1:0:1}" = - ]; then
		set -- postgres "$@"
	fi
	if [ "${1:-}" = postgres ] && ! _pg_want_help "$@"; then
		docker_setup_env
		docker_create_db_directories
		if [ "$(id -u)" = 0 ]; then
			exec gosu postgres "${BASH_SOURCE[0]}" "$@"
		fi
		if [ -z "$DATABASE_ALREADY_EXISTS" ]; then
			_pg_first_start "$@"
		else
			printf '\nPostgreSQL Database directory appears to contain a database; Skipping initialization\n\n'
		fi
	fi
	exec "$@"
}

if ! _is_sourced; then
	_main "$@"
fi
