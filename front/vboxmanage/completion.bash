# SPDX-License-Identifier: Apache-2.0
# bash completion for VBoxManage: commands, machines, lists, and the options that a command's usage names.
# shellcheck shell=bash

_vboxmanage_words() { # the words of the usage text that look like what is asked for
	"$1" help "$2" 2>/dev/null | grep -oE -- "$3" | sort -u
}

_vboxmanage_machines() {
	local line
	while IFS= read -r line; do
		line=${line#\"}
		printf '%q\n' "${line%\" \{*}"
	done < <("$1" list "${2:-vms}" 2>/dev/null)
}

_vboxmanage_reply() { # CURRENT, candidates on stdin, one a line
	local word
	COMPREPLY=()
	while IFS= read -r word; do
		[[ $word == "$1"* ]] && COMPREPLY+=("$word")
	done
}

_vboxmanage() {
	local program=${COMP_WORDS[0]} cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} verb='' i
	for ((i = 1; i < COMP_CWORD; i++)); do
		[[ ${COMP_WORDS[i]} == -* ]] || { verb=${COMP_WORDS[i]}; break; }
	done
	if [[ -z $verb ]]; then
		_vboxmanage_reply "$cur" < <("$program" commands 2>/dev/null)
		return
	fi
	case $prev in
	--ostype | --os-type)
		_vboxmanage_reply "$cur" < <("$program" list ostypes 2>/dev/null | sed -n 's/^ID: *//p')
		return
		;;
	--medium | --filename | --basefolder | --hostpath | --iso | --additions-iso | --script-template | --password-file | --diff-parent | --diffparent | --move | --setlocation | --output | -o | --folder | --settingsfile | --disk | --eulafile | \
		--newpassword | --oldpassword)
		compopt -o filenames
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		return
		;;
	esac
	if [[ $cur == -* ]]; then
		_vboxmanage_reply "$cur" < <(_vboxmanage_words "$program" "$verb" '--[a-z][a-z-]*')
		return
	fi
	case $verb:$((COMP_CWORD - i)) in
	help:1) _vboxmanage_reply "$cur" < <("$program" commands 2>/dev/null) ;;
	list:*) _vboxmanage_reply "$cur" < <(printf '%s\n' vms runningvms hdds dvds floppies ostypes hostinfo \
		systemproperties bridgedifs hostonlyifs hostonlynets dhcpservers natnets natnetworks intnets groups extpacks \
		hostdvds hostfloppies hostcpuids hddbackends usbhost usbfilters webcams screenshotformats cpu-profiles \
		hostdrives cloudproviders cloudprofiles updates) ;;
	unattended:1) _vboxmanage_reply "$cur" < <(printf '%s\n' detect install) ;;
	debugvm:1) _vboxmanage_reply "$cur" < <(_vboxmanage_machines "$program" runningvms) ;;
	debugvm:2) _vboxmanage_reply "$cur" < <(printf '%s\n' dumpvmcore gdb getregisters guestsample info injectnmi log \
		logdest osdetect osdmesg osinfo setregisters show stack statistics) ;;
	controlvm:1) _vboxmanage_reply "$cur" < <(_vboxmanage_machines "$program" runningvms) ;;
	controlvm:2) _vboxmanage_reply "$cur" < <(printf '%s\n' pause resume reset poweroff acpipowerbutton \
		savestate screenshotpng addencpassword keyboardputscancode keyboardputstring keyboardputfile vrde setlinkstate1 natpf1 nictrace1 \
		nictracefile1 nic1 nicpromisc1 nicproperty1 shutdown reboot cpuexecutioncap autostart-enabled \
		autostart-delay vrdeport) ;;
	metrics:1) _vboxmanage_reply "$cur" < <(printf '%s\n' list setup query enable disable collect) ;;
	metrics:*) _vboxmanage_reply "$cur" < <(echo host; _vboxmanage_machines "$program" runningvms) ;;
	snapshot:2) _vboxmanage_reply "$cur" < <(printf '%s\n' take delete restore restorecurrent edit list showvminfo) ;;
	snapshot:3)
		_vboxmanage_reply "$cur" < <("$program" snapshot "${COMP_WORDS[i + 1]}" list --machinereadable 2>/dev/null |
			sed -n 's/^SnapshotName[-0-9]*="\(.*\)"$/\1/p')
		;;
	startvm:* | clonevm:1 | discardstate:1 | adoptstate:1 | modifyvm:1 | showvminfo:1 | unregistervm:1 | storagectl:1 | storageattach:1 | snapshot:1 | movevm:1 | export:* | \
		bandwidthctl:1 | getextradata:1 | setextradata:1 | guestcontrol:1 | guestproperty:2 | sharedfolder:2)
		_vboxmanage_reply "$cur" < <(_vboxmanage_machines "$program")
		;;
	hostonlyif:1) _vboxmanage_reply "$cur" < <(printf '%s\n' create remove ipconfig) ;;
	hostonlyif:2) _vboxmanage_reply "$cur" < <("$program" list hostonlyifs 2>/dev/null | sed -n 's/^Name: *//p') ;;
	hostonlynet:1) _vboxmanage_reply "$cur" < <(printf '%s\n' add modify remove) ;;
	natnetwork:1) _vboxmanage_reply "$cur" < <(printf '%s\n' add modify remove start stop list) ;;
	dhcpserver:1) _vboxmanage_reply "$cur" < <(printf '%s\n' add modify remove start restart stop findlease) ;;
	bandwidthctl:2) _vboxmanage_reply "$cur" < <(printf '%s\n' add set remove list) ;;
	guestproperty:1) _vboxmanage_reply "$cur" < <(printf '%s\n' get set unset enumerate wait) ;;
	sharedfolder:1) _vboxmanage_reply "$cur" < <(printf '%s\n' add modify remove) ;;
	createmedium:1 | closemedium:1 | showmediuminfo:1 | modifymedium:1 | clonemedium:1)
		_vboxmanage_reply "$cur" < <(printf '%s\n' disk dvd floppy)
		;;
	mediumproperty:1) _vboxmanage_reply "$cur" < <(printf '%s\n' disk dvd floppy get set delete) ;;
	internalcommands:1) _vboxmanage_reply "$cur" < <(printf '%s\n' sethduuid) ;;
	*)
		compopt -o filenames
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		;;
	esac
}

complete -F _vboxmanage VBoxManage vboxmanage
