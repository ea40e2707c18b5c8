# SPDX-License-Identifier: Apache-2.0
# bash completion for lodge: verbs, the options that a verb's help names, machines, networks, files.
# shellcheck shell=bash

_lodge_reply() { # CURRENT, candidates on stdin, one a line
	local word
	COMPREPLY=()
	while IFS= read -r word; do
		[[ $word == "$1"* ]] && COMPREPLY+=("$word")
	done
}

_lodge_machines() { # those that run
	local line
	while IFS= read -r line; do
		line=${line#\"}
		printf '%q\n' "${line%\" \{*}"
	done < <("$(dirname "$(type -P "$1")")/VBoxManage" list runningvms 2>/dev/null)
}

_lodge() {
	local program=${COMP_WORDS[0]} cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} verb=${COMP_WORDS[1]}
	if [[ $COMP_CWORD == 1 ]]; then
		_lodge_reply "$cur" < <("$program" --help 2>/dev/null | sed -nE 's/^  ([a-z]+) .*/\1/p'; printf '%s\n' --help --version)
		return
	fi
	if [[ $cur == -* ]]; then
		_lodge_reply "$cur" < <({ "$program" "$verb" --help 2>/dev/null; echo --help; } | grep -oE -- '--[a-z][a-z-]*' | sort -u)
		return
	fi
	case $verb:$prev in
	boot:--engine) _lodge_reply "$cur" < <(printf '%s\n' auto kvm jit interp) ;;
	boot:--device) _lodge_reply "$cur" < <(printf '%s\n' debug-exit testdev virtio-rng virtio-balloon virtio-console) ;;
	boot:--cpus | boot:--memory | boot:--timeout | boot:--append | boot:--name | fork:--count | fork:--name | connect:--listen | \
		connect:--socks) ;;
	why:* | wait:wait | fork:* | connect:*) _lodge_reply "$cur" < <(_lodge_machines "$program") ;;
	autostart:autostart) _lodge_reply "$cur" < <(printf '%s\n' start stop) ;;
	net:net) _lodge_reply "$cur" < <(printf '%s\n' list show top stop trace group) ;;
	net:show | net:stop | net:trace | net:group)
		_lodge_reply "$cur" < <("$program" net list 2>/dev/null | sed -nE '2,$s/^([^ ]+) .*/\1/p') ;;
	net:*) [[ ${COMP_WORDS[2]} == trace ]] && _lodge_reply "$cur" < <(printf '%s\n' on off) ;;
	*)
		compopt -o filenames
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		;;
	esac
}

complete -F _lodge lodge
