# bash completion for grizzly-supervisor: commands, their options, node ids.
_grizzly_supervisor()
{
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} command=${COMP_WORDS[1]} i dir='' ids=''
	local commands="run status switchover add-replica remove-replica replicas backup restore stop reload restart
		check-config selftest events salvage recover token --help --version"
	COMPREPLY=()
	if [ "$COMP_CWORD" -eq 1 ]; then
		mapfile -t COMPREPLY < <(compgen -W "$commands" -- "$cur")
		return
	fi
	for ((i = 2; i < COMP_CWORD; i++)); do
		[ "${COMP_WORDS[i]}" != --data-dir ] || dir=${COMP_WORDS[i + 1]}
	done
	case $command:$prev in
	*:--data-dir | restore:--archive)
		mapfile -t COMPREPLY < <(compgen -d -- "$cur")
		return
		;;
	*:--config | backup:--to | restore:--from)
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		return
		;;
	restart:restart)
		mapfile -t COMPREPLY < <(compgen -W "all supervisor node1 node2 node3 --data-dir" -- "$cur")
		return
		;;
	switchover:--to | backup:--node)
		[ -z "$dir" ] || ids=$(cd -- "$dir" 2>/dev/null && printf '%s\n' node[0-9] node[0-9][0-9] | grep -v '\[')
		mapfile -t COMPREPLY < <(compgen -W "$ids" -- "$cur")
		return
		;;
	*:--replicas | *:--http-port | *:--bind | *:--last | *:--to-lsn | *:--to-time | *:--seconds)
		return
		;;
	esac
	local options=--data-dir
	if [ "$command" = token ]; then
		if [ "$COMP_CWORD" -eq 2 ]; then
			mapfile -t COMPREPLY < <(compgen -W "add list revoke --data-dir --role --expires --json" -- "$cur")
			return
		fi
		[ "$prev" != --role ] || options="read write admin"
		[ "$prev" = --role ] || options+=" --role --expires --json"
	fi
	case $command in
	run) options+=" --config --replicas --http-port --bind --daemon" ;;
	status) options+=" --json --watch" ;;
	switchover) options+=" --to" ;;
	add-replica) options+=" --readonly" ;;
	replicas | salvage) options+=" --json" ;;
	backup) options+=" --to --node --offline --force --progress" ;;
	restore) options+=" --from --archive --to-lsn --to-time --to-end --config --replicas --http-port --bind" ;;
	check-config) options+=" --config" ;;
	selftest) options+=" --seconds --replicas --json --keep" ;;
	events) options+=" --json --last --follow" ;;
	recover) options+=" --accept-loss" ;;
	esac
	mapfile -t COMPREPLY < <(compgen -W "$options" -- "$cur")
}
complete -F _grizzly_supervisor grizzly-supervisor
