#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# Numbers of machines and the host, response files, autostart, and commands that have no place here.
load common

running() { # NAME
	needs_machines
	make_vm "$1"
	VBoxManage modifyvm "$1" --memory 32
	VBoxManage startvm "$1" >/dev/null
}

values() { # OBJECT METRIC
	VBoxManage metrics query "$1" "$2" | sed -n "s|^$1 *$2 *||p"
}

@test "metrics list names what the host has, and a machine only while it runs" {
	make_vm off
	vbm metrics list host
	succeeds
	[ "${lines[0]}" = "Object          Metric                                   Unit    Minimum    Maximum     Period      Count Description" ]
	for m in CPU/Load/User CPU/Load/Kernel CPU/Load/Idle CPU/MHz RAM/Usage/Total RAM/Usage/Used RAM/Usage/Free; do
		for a in "" :avg :min :max; do grep -q "^host  *$m$a " <<<"$output"; done
	done
	vbm metrics list off
	[ "$(wc -l <<<"$output")" = 2 ]
	vbm metrics list nobody
	fails_with 1 "Could not find a registered machine named 'nobody'"
	vbm metrics sing
	fails_with 2 "Invalid subcommand 'sing'"
}

@test "metrics query tells what the kernel tells about the machine's process" {
	running web1
	pid=$(head -n1 "$LODGE_HOME/run/$(mr web1 UUID)/lock")
	a=$(values web1 RAM/Usage/Used)
	b=$(awk -v page="$(getconf PAGESIZE)" '{ print int($2 * page / 1024) }' "/proc/$pid/statm")
	[[ $a == *" kB" ]]
	[ $((${a% kB} * 10)) -gt $((b * 8)) ]
	[ $((${a% kB} * 10)) -lt $((b * 12)) ]
	t=$(values host RAM/Usage/Total)
	[ "${t% kB}" = "$(awk '/^MemTotal:/ { print $2 }' /proc/meminfo)" ]
	[[ $(values host CPU/Load/User) =~ ^[0-9]+\.[0-9][0-9]%$ ]]
}

@test "metrics setup keeps as many samples as asked for, with their mean, least and most" {
	running web1
	VBoxManage metrics setup --period 1 --samples 3 web1 RAM/*
	for _ in 1 2 3; do
		sleep 0.1
		VBoxManage metrics query web1 >/dev/null
	done
	run values web1 RAM/Usage/Used
	[[ $output =~ ^[0-9]+\ kB,\ [0-9]+\ kB,\ [0-9]+\ kB$ ]]
	run values web1 CPU/Load/User
	[[ $output =~ ^[0-9.]+%$ ]]
	VBoxManage metrics query web1 'RAM/Usage/Used*' >all
	[ "$(grep -c '^web1' all)" = 4 ]
	get() { sed -n "s/^web1  *RAM.Usage.Used:$1 *\([0-9]*\) kB$/\1/p" all; }
	[ "$(get min)" -le "$(get avg)" ]
	[ "$(get avg)" -le "$(get max)" ]
	VBoxManage metrics query web1 RAM/Usage/Used:max >all
	[ "$(grep -c '^web1' all)" = 1 ]
	VBoxManage metrics disable web1 RAM/Usage/Used
	[ -z "$(values web1 RAM/Usage/Used)" ]
	VBoxManage metrics enable web1 RAM/Usage/Used
	[ -n "$(values web1 RAM/Usage/Used)" ]
}

@test "metrics collect prints until it is interrupted; --detach collects behind one's back until disable" {
	running web1
	run timeout -s INT 1.5 VBoxManage metrics collect web1 CPU/Load/User
	[[ ${lines[0]} == "Time stamp "* ]]
	grep -qE '^[0-9:.]{12} web1 +CPU/Load/User +[0-9.]+%$' <<<"$output"
	run timeout 5 bash -c 'out=$(VBoxManage metrics collect --detach --samples 4 web1); echo "<$out>"'
	[ "$output" = "<>" ]
	collector=$(sed 's/.*"collector": *\([0-9]*\).*/\1/' "$LODGE_HOME/metrics.json")
	kill -0 "$collector"
	VBoxManage metrics disable
	gone() { [ ! -e "/proc/$collector" ] || grep -q ') Z ' "/proc/$collector/stat"; } # nobody may have waited for it
	for _ in $(seq 100); do
		! gone || break
		sleep 0.1
	done
	gone
}

@test "a response file gives the command and its words, quoted as in a shell" {
	cat >create.rsp <<-'END'
		# a machine whose name has a space and a quotation mark
		createvm --name "two \"words'" \
		  --ostype 'Debian_64'
	END
	vbm @create.rsp --register
	succeeds
	vbm list vms
	[[ $output == "\"two \"words'\" {"* ]]
	vbm -q @none.rsp
	fails_with 2 "Reading the response file 'none.rsp' failed"
	echo "list 'vms" >open.rsp
	vbm @open.rsp
	fails_with 2 "a quotation that does not end"
	echo "@open.rsp" >two.rsp
	vbm @two.rsp
	fails_with 2 "cannot name another"
}

@test "what VirtualBox has and has no place here is refused by name, with the reason; a misspelling is usage" {
	for verb in cloud cloudprofile encryptvm extpack mediumio modifynvram signova updatecheck usbdevsource usbfilter; do
		vbm $verb
		fails_with 1 "'$verb' is not available here: "
	done
	vbm clod
	fails_with 2 "Invalid command 'clod'"
	running web1
	for word in acpisleepbutton teleport usbattach webcam plugcpu changeuartmode1 clipboard recording; do
		vbm controlvm web1 "$word" x
		fails_with 1 "'$word' is not available here: "
	done
	vbm controlvm web1 powerof
	fails_with 2 "Invalid parameter 'powerof'"
}

@test "the console's port moves while the machine runs, and stays where it is when the new one is taken" {
	running web1
	VBoxManage controlvm web1 vrdeport 6950-6999
	VBoxManage controlvm web1 vrde on
	a=$(mr web1 vrdeport)
	[ "$a" -ge 6950 ]
	exec 8<>"/dev/tcp/127.0.0.1/$a"
	vbm controlvm web1 vrdeport "$a"
	fails_with 1 ""
	[ "$(mr web1 vrdeport)" = "$a" ]
	[ "$(mr web1 vrdeports)" = 6950-6999 ]
	VBoxManage controlvm web1 vrdeport 7050-7099
	[ "$(mr web1 vrdeport)" -ge 7050 ]
	(exec 9<>"/dev/tcp/127.0.0.1/$(mr web1 vrdeport)")
	run bash -c "exec 9<>/dev/tcp/127.0.0.1/$a"
	[ "$status" != 0 ]
}

@test "machines start with the host in the order of their delays and end as their autostop type says" {
	needs_machines
	for n in a b c d; do
		make_vm $n
		VBoxManage modifyvm $n --memory 32
	done
	VBoxManage modifyvm a --autostart-enabled on --autostart-delay 1 --autostop-type savestate
	VBoxManage modifyvm b --autostart-enabled on --autostop-type poweroff
	VBoxManage modifyvm c --autostart-enabled on
	run --separate-stderr lodge autostart start
	says "b starts after 0 s
c starts after 0 s
a starts after 1 s"
	[ "$(mr d VMState)" = poweroff ]
	for n in a b c; do [ "$(mr $n VMState)" = running ]; done
	run --separate-stderr lodge autostart stop
	succeeds
	[ "$(mr a VMState)" = saved ]
	[ "$(mr b VMState)" = poweroff ]
	[ "$(mr c VMState)" = running ]
	run lodge autostart start --dry-run
	[ "$output" = "b starts after 0 s
a starts after 1 s" ]
	VBoxManage controlvm c poweroff 2>/dev/null
}

@test "lodge why tells what the guest shows and said last, and what stands behind its ports; lodge wait uses it" {
	needs_machines
	make_vm web1
	port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
	VBoxManage modifyvm web1 --memory 32 --uart1 0x3f8 4 --natpf1 "ssh,tcp,127.0.0.1,$port,,22"
	run lodge wait web1
	[ "$status" = 1 ]
	[[ ${lines[0]} == "lodge: the machine is powered off" ]]
	VBoxManage startvm web1 >/dev/null
	run lodge wait web1 --timeout 1 --port 80
	[ "$status" = 2 ]
	[[ $output == *"no port of this host leads to port 80"* ]]
	for _ in $(seq 50); do
		run lodge why web1
		[[ $output != *"No bootable device"* ]] || break
	done
	has_line "Machine 'web1' is running."
	has_line "It seems that the firmware found nothing to boot from: look at the boot order and what is attached."
	grep -q "^  | No bootable device" <<<"$output"
	grep -q "^Adapter 1 (nat, cable in): the guest sent 0 frames and received [0-9]*: it does not use the adapter, or not yet$" <<<"$output"
	has_line "  port $port, forwarded to the guest's 22 (ssh), is open, and nothing came from the guest in 1.5 s"
	run lodge wait web1 --timeout 1
	[ "$status" = 1 ]
	[ "${lines[0]}" = "lodge: port 22 of the guest did not answer in 1 s" ]
	has_line "Machine 'web1' is running."
	VBoxManage controlvm web1 poweroff 2>/dev/null
	run lodge why web1
	[ "$status" = 0 ]
	grep -q 'running$' <<<"$output"
	run lodge why nobody
	[ "$status" = 1 ]
}
