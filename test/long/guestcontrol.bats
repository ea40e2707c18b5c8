#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# guestcontrol in Debian with its own package qemu-guest-agent, then with our agent put in its place by updateadditions.
bats_require_minimum_version 1.5.0
load ../guest/common

setup_file() {
	export PATH=$LODGE_BIN:$PATH:/sbin:/usr/sbin LODGE_ENGINE=${LODGE_TEST_ENGINE:-auto}
	export HOME=$BATS_FILE_TMPDIR LODGE_HOME=$BATS_FILE_TMPDIR/lodge DEBIAN=$LODGE_OUT/debian.img
	[[ -f $DEBIAN && $DEBIAN -nt tools/make-debian ]] || tools/make-debian "$DEBIAN"
	port=$(free_port)
	export port
	VBoxManage convertfromraw "$DEBIAN" "$HOME/deb.vdi" --format VDI 2>/dev/null
	VBoxManage createvm --name deb --ostype Debian_64 --register >/dev/null
	VBoxManage modifyvm deb --memory 512 --nic1 nat --natpf1 "ssh,tcp,127.0.0.1,$port,,22"
	VBoxManage storagectl deb --name SATA --add sata
	VBoxManage storageattach deb --storagectl SATA --port 0 --type hdd --medium "$HOME/deb.vdi"
	VBoxManage startvm deb --type headless >/dev/null
	wait_for 300 in_guest true
	run VBoxManage guestcontrol deb run --username root --password lodge -- /bin/true
	[[ $status -eq 1 && $output == *"not ready"* ]]
	mapfile -t debs < <(tools/fetch-deb "$LODGE_OUT/cache" qemu-guest-agent libglib2.0-0 libnuma1 liburing2 libpcre2-8-0 2>/dev/null | grep '\.deb$')
	tar -C / -cf - "${debs[@]#/}" | in_guest 'cd /tmp && tar xf - --transform "s,.*/,,"; dpkg -i *.deb >/dev/null 2>&1; rm *.deb
		systemctl start qemu-guest-agent; useradd -m -s /bin/bash joe; echo "joe:se cret'"'"'1" | chpasswd'
	VBoxManage guestcontrol deb waitrunlevel userland --timeout 60000
}

teardown_file() { VBoxManage controlvm deb poweroff >/dev/null 2>&1 || true; }

in_guest() {
	ssh -i "$DEBIAN.key" -p "$port" -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR \
		-o ConnectTimeout=20 root@127.0.0.1 "$@"
}

setup() {
	as_joe=(--username joe --password "se cret'1")
	cd "$BATS_TEST_TMPDIR" || return 1
}

gctl() { run --separate-stderr timeout 240 VBoxManage guestcontrol deb "$@"; }

# shellcheck disable=SC2154
said() { # STATUS TEXT: how the last one ended, and what it said on standard error
	[[ $status -eq $1 && $stderr == *"$2"* ]] || { echo "status $status; stdout: $output; stderr: $stderr"; return 1; }
}

# The same with either agent.
# shellcheck disable=SC2154
programs_run() {
	gctl run "${as_joe[@]}" --putenv "A=it's" -- /bin/sh -c 'id -un; pwd; echo "$A"; echo err >&2; exit 5'
	[[ $status -eq 37 && $output == "joe
/home/joe
it's" && $stderr == err ]] || { echo "$status $output $stderr"; return 1; }
	gctl run --username joe --password wrong -- /bin/true
	said 1 "The specified user was not able to logon on guest" || return 1
	# A password that was right a moment ago is not when the guest has another.
	in_guest 'echo "joe:another" | chpasswd'
	gctl run "${as_joe[@]}" -- /bin/true
	said 1 "not able to logon" || return 1
	gctl run --username joe --password another -- /bin/true
	said 0 "" || return 1
	in_guest 'echo "joe:se cret'"'"'1" | chpasswd'
	gctl run "${as_joe[@]}" -- /bin/nothing
	said 1 "The specified file was not found on guest" || return 1
	gctl run "${as_joe[@]}" --timeout 2000 -- /bin/sleep 100
	said 20 "" || return 1
	run VBoxManage guestcontrol deb run "${as_joe[@]}" --stdin -- /usr/bin/tr a-z A-Z <<<"from here"
	[[ $output == "FROM HERE" ]] || return 1
	head -c 2000000 /dev/urandom >blob
	gctl copyto "${as_joe[@]}" blob /home/joe/blob && said 0 "" || return 1
	gctl copyfrom "${as_joe[@]}" /home/joe/blob back && said 0 "" || return 1
	cmp blob back || return 1
	mkfifo pipe
	VBoxManage guestcontrol deb run "${as_joe[@]}" -- /bin/sh -c 'echo first; sleep 300' >pipe 3>&- &
	timeout 60 head -n 1 <pipe | grep -qx first || return 1
	kill -9 $!
	wait_for 60 eval '! in_guest pgrep -x sleep >/dev/null' || return 1
	wait_for 60 eval '[[ -z $(in_guest "ls -A /tmp | grep lodge") ]]'
}

@test "programs, passwords, files and killed clients with QEMU's agent" {
	programs_run
}

@test "the password is in no process list of the guest" {
	VBoxManage guestcontrol deb run "${as_joe[@]}" -- /bin/sleep 600 3>&- &
	wait_for 60 in_guest pgrep -x sleep
	run in_guest 'cat /proc/*/cmdline /proc/*/environ 2>/dev/null | tr "\0" " " | grep -c "se [c]ret"'
	[ "$output" = 0 ]
	run in_guest 'journalctl | grep -c "se [c]ret"'
	[ "$output" = 0 ]
	kill $!
	wait || true
}

@test "an agent that hangs is an error after its time, and is found again" {
	in_guest 'killall -STOP qemu-ga 2>/dev/null || pkill -STOP qemu-ga'
	gctl run "${as_joe[@]}" -- /bin/true
	said 1 "did not answer in time"
	[[ $stderr == *"The log of its kernel:"* && $stderr == *"forwarded to the guest's 22 (ssh), answers \"SSH-2.0"* ]]
	in_guest 'pkill -CONT qemu-ga'
	wait_for 60 VBoxManage guestcontrol deb run "${as_joe[@]}" -- /bin/true
}

@test "a saved state that is resumed later has the host's time, which QEMU's agent sets" {
	VBoxManage controlvm deb savestate 2>/dev/null
	sleep 5
	VBoxManage startvm deb >/dev/null
	wait_for 10 time_is_right
	behind=$(($(date +%s) - $(in_guest cat /sys/class/rtc/rtc0/since_epoch)))
	[ "${behind#-}" -le 2 ]
}

time_is_right() {
	local behind=$(($(date +%s) - $(in_guest date +%s)))
	echo "the guest is $behind s behind"
	[ "${behind#-}" -le 1 ]
}

@test "updateadditions puts our agent in its place, and all of that works with it" {
	run VBoxManage guestcontrol deb updateadditions
	echo "$output"
	[ "$status" -eq 0 ]
	run VBoxManage guestcontrol deb waitrunlevel userland --verbose
	[[ $output == *"Lodge's agent"* ]]
	programs_run
}
