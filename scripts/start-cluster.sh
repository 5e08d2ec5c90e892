#!/usr/bin/env bash
# start-cluster.sh - from a checkout to an answering cluster: packages, build, start, wait until it is ready.
# Exit codes: 0 the cluster runs (started now or before), 1 it does not and the reason was printed, 2 bad options.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

ready_timeout_s=${GRIZZLY_READY_TIMEOUT_S:-60}
data_dir=./data
foreground=no
run_options=()
http_port=8080
bind=127.0.0.1

print_help() {
	cat <<-END
	Usage: scripts/start-cluster.sh [--replicas N] [--data-dir DIR] [--http-port PORT] [--bind ADDRESS] [--foreground]

	Installs missing Debian packages, builds Grizzly in build/ when needed, starts a supervisor with one master and
	its replicas, and waits until the cluster answers.

	  --replicas N      replicas beside the master, 0..30 (2)
	  --data-dir DIR    where everything is kept (./data); settings: DIR/cluster.json, written at the first start
	  --http-port PORT  the cluster's HTTP endpoint (8080); node i uses PORT+i, PORT+100+i and PORT+200+i
	  --bind ADDRESS    the address that all sockets bind to (127.0.0.1)
	  --foreground      the supervisor stays in this terminal; Ctrl-C stops the cluster
	  --help            this text

	--replicas, --http-port and --bind are for the first start; later ones read DIR/cluster.json.
	On a running cluster it says so. Where only the supervisor had died, a new one takes over the running nodes.
	GRIZZLY_TOKEN sets the access token at the first start; otherwise a random one is made in DIR/token.
	Exit codes: 0 running, 1 failed, 2 bad options.
	END
}

while [ $# -gt 0 ]; do
	case $1 in
	--*=*) # --option=value: the same as two words
		set -- "${1%%=*}" "${1#*=}" "${@:2}"
		case $1 in
		--replicas | --data-dir | --http-port | --bind) ;;
		*) usage_error "unknown option: $1=$2" ;;
		esac
		;;
	esac
	case $1 in
	--replicas)
		take_value "$1" $#
		whole_number "$1" "$2" 0 30
		run_options+=("$1" "$2")
		shift 2
		;;
	--data-dir)
		take_value "$1" $#
		[ -n "$2" ] || usage_error "--data-dir: empty"
		data_dir=$2
		shift 2
		;;
	--http-port)
		take_value "$1" $#
		whole_number "$1" "$2" 1 65235
		http_port=$2
		run_options+=("$1" "$2")
		shift 2
		;;
	--bind)
		take_value "$1" $#
		[ -n "$2" ] || usage_error "--bind: empty"
		bind=$2
		run_options+=("$1" "$2")
		shift 2
		;;
	--foreground)
		foreground=yes
		shift
		;;
	--help | -h)
		print_help
		exit 0
		;;
	*) usage_error "unknown option: $1" ;;
	esac
done

# tls_text KEY: of the section "tls" in cluster.json, as the supervisor understands it.
tls_text() {
	"$programs_dir/grizzly-supervisor" check-config --data-dir "$data_dir" 2>/dev/null | json_text "$1" || true
}

# tls_path KEY: the same of a file, which may be named relative to the data directory.
tls_path() {
	local path
	path=$(tls_text "$1")
	case $path in
	'' | /*) printf '%s' "$path" ;;
	*) printf '%s' "$data_dir/$path" ;;
	esac
}

# scheme, curl_options: how a client asks this cluster. Whoever may read the data directory may show the nodes' certificate.
find_scheme() {
	local ca
	scheme=http
	curl_options=()
	[ -n "$(tls_text cert_file)" ] || return 0
	scheme=https
	ca=$(tls_path ca_file)
	[ -n "$ca" ] || ca=$(tls_path cert_file)
	curl_options=(--cacert "$ca")
	if [ "$(tls_text client_certificates)" != none ]; then
		curl_options+=(--cert "$(tls_path cert_file)" --key "$(tls_path key_file)")
	fi
}

# What a client types: the endpoint that the supervisor names, with an address that can be dialled in place of "any".
find_endpoint() {
	local text host port
	text=$("$programs_dir/grizzly-supervisor" status --data-dir "$data_dir" --json 2>/dev/null | json_text endpoint) || true
	[ -n "$text" ] || text=$bind:$http_port
	host=${text%:*}
	port=${text##*:}
	case $host in
	0.0.0.0) host=127.0.0.1 ;;
	'[::]' | ::) host='[::1]' ;;
	esac
	endpoint=$host:$port
	find_scheme
}

print_cluster() {
	cat <<-END
	endpoint: $scheme://$endpoint
	token:    $data_dir/token
	try:      curl -sS${curl_options[*]:+ ${curl_options[*]}} $scheme://$endpoint/query -H "Authorization: Bearer \$(cat '$data_dir/token')" -d '{"sql":"SELECT 1 AS one"}'
	status:   $programs_dir/grizzly-supervisor status --data-dir '$data_dir'
	stop:     $top_dir/scripts/stop-cluster.sh --data-dir '$data_dir'
	END
}

show_logs() {
	local log
	for log in "$data_dir"/log/*.log; do
		if [ -s "$log" ]; then
			printf -- '--- %s\n' "$log" >&2
			tail -n 15 "$log" >&2
		fi
	done
}

# The supervisor hears of a master some milliseconds after the first client may.
has_master() {
	[ -n "$("$programs_dir/grizzly-supervisor" status --data-dir "$data_dir" --json 2>/dev/null | json_text master)" ]
}

# Waits for GET /ready to say 200, and for `status` to know it, for as long as a supervisor runs.
wait_until_ready() {
	local give_up=$((SECONDS + ready_timeout_s)) seen=$SECONDS answer=000
	while [ "$SECONDS" -lt "$give_up" ]; do
		if is_running; then
			seen=$SECONDS
			find_endpoint
			answer=$(curl -sS -o /dev/null -m 5 -w '%{http_code}' "${curl_options[@]}" "$scheme://$endpoint/ready" 2>/dev/null) || true
			[ "$answer" != 200 ] || ! has_master || return 0
		elif [ "$((SECONDS - seen))" -gt 10 ]; then
			printf 'the supervisor does not answer\n' >&2
			return 1
		fi
		sleep 0.05
	done
	find_endpoint
	printf '%s://%s/ready did not answer 200 within %s s (last: %s)\n' "$scheme" "$endpoint" "$ready_timeout_s" "$answer" >&2
	return 1
}

is_running() {
	"$programs_dir/grizzly-supervisor" status --data-dir "$data_dir" --json >/dev/null 2>&1
}

# Ends the script with the supervisor's own reason; a configuration error keeps its exit code.
start_failed() {
	if [ "$1" -eq 2 ]; then
		exit 2
	fi
	show_logs
	die "the cluster did not start"
}

ensure_programs
mkdir -p "$data_dir" || die "cannot create $data_dir"
data_dir=$(cd "$data_dir" && pwd)

if is_running; then
	wait_until_ready || die "a cluster runs in $data_dir but does not answer; see its status and log/"
	say "the cluster in $data_dir is running already"
	print_cluster
	exit 0
fi

if [ "$foreground" = yes ]; then
	(
		if wait_until_ready; then
			print_cluster
		fi
	) &
	exec "$programs_dir/grizzly-supervisor" run --data-dir "$data_dir" "${run_options[@]}"
fi

"$programs_dir/grizzly-supervisor" run --data-dir "$data_dir" "${run_options[@]}" --daemon || start_failed $?
if ! wait_until_ready; then
	show_logs
	die "the cluster started but is not ready; stop it with scripts/stop-cluster.sh --data-dir '$data_dir'"
fi
say "the cluster is ready"
print_cluster
