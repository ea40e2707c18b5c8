#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# guestcontrol with our agent in a guest of busybox: one machine for the whole file, on a CD that this file makes out of
# the demonstration's. (test/long/guestcontrol.bats does the same with Debian and QEMU's agent.)
bats_require_minimum_version 1.5.0
load common

setup_file() {
	setup_file_common
	export LODGE_ENGINE=${LODGE_TEST_ENGINE:-auto} HOME=$BATS_FILE_TMPDIR LODGE_HOME=$BATS_FILE_TMPDIR/lodge
	make_disc "$HOME/agent.iso"
	VBoxManage createvm --name box --ostype Linux_64 --register >/dev/null
	VBoxManage modifyvm box --memory 256 --nic1 nat --uart1 0x3F8 4 --uart-mode1 file "$HOME/console"
	VBoxManage storagectl box --name IDE --add ide
	VBoxManage storageattach box --storagectl IDE --port 1 --device 0 --type dvddrive --medium "$HOME/agent.iso"
	VBoxManage startvm box --type headless >/dev/null
	VBoxManage guestcontrol box waitrunlevel userland --timeout 120000 || { tail -n 30 "$HOME/console"; false; }
}

teardown_file() {
	VBoxManage controlvm box poweroff >/dev/null 2>&1 || true
}

make_disc() { # OUT.iso: root has the password "lodge", joe "se cret'1"
	local root=$BATS_FILE_TMPDIR/root cd=$BATS_FILE_TMPDIR/cd
	mkdir -p "$root"/{sbin,etc,home/joe,root,run} "$cd/isolinux"
	cp "$LODGE_BIN/lodge-agent" "$root/sbin/"
	printf 'root:x:0:0:root:/root:/bin/sh\njoe:x:1000:1000::/home/joe:/bin/sh\n' >"$root/etc/passwd"
	printf 'root:%s:19000::::::\njoe:%s:19000::::::\n' "$(openssl passwd -6 lodge)" "$(openssl passwd -6 "se cret'1")" >"$root/etc/shadow"
	printf 'root:x:0:\njoe:x:1000:\nextra:x:1001:joe\n' >"$root/etc/group"
	chmod 600 "$root/etc/shadow"
	(cd "$root" && find . -print0 | cpio --quiet -0 -o -H newc -R 0:0 | gzip -1) >"$BATS_FILE_TMPDIR/extra"
	cp /usr/lib/ISOLINUX/isolinux.bin /usr/lib/syslinux/modules/bios/ldlinux.c32 "$cd/isolinux/"
	cp "$ISO.vmlinuz" "$cd/isolinux/vmlinuz"
	cat "$ISO.initrd" "$BATS_FILE_TMPDIR/extra" >"$cd/isolinux/initrd.gz"
	printf 'DEFAULT linux\nPROMPT 0\nLABEL linux\nKERNEL vmlinuz\nAPPEND initrd=initrd.gz console=ttyS0 quiet %s\n' \
		"$(script <<<'chown 1000:1000 /home/joe; chmod 1777 /tmp; while :; do /sbin/lodge-agent --foreground; sleep 1; done')" >"$cd/isolinux/isolinux.cfg"
	xorriso -as mkisofs -quiet -o "$1" -b isolinux/isolinux.bin -c isolinux/boot.cat -no-emul-boot -boot-load-size 4 \
		-boot-info-table "$cd" 2>/dev/null
}

setup() {
	as_joe=(--username joe --password "se cret'1")
	cd "$BATS_TEST_TMPDIR" || return 1
}

gctl() { # guestcontrol ARGUMENTS...: status, output, stderr
	run --separate-stderr timeout 60 VBoxManage guestcontrol box "$@"
}

# shellcheck disable=SC2154
ok() {
	[ "$status" -eq 0 ] || { echo "status $status; stdout: $output; stderr: $stderr"; return 1; }
}

fails() { # STATUS TEXT
	[[ $status -eq $1 && $stderr == *"$2"* ]] || { echo "status $status; stdout: $output; stderr: $stderr"; return 1; }
}

in_guest_says() { # COMMAND of the guest's shell
	VBoxManage guestcontrol box run --username root --password lodge -- /bin/sh -c "$1"
}

@test "a program runs as its user, with that user's groups, home and environment" {
	gctl run "${as_joe[@]}" --exe /bin/sh -- sh -c 'id -un; id -Gn; pwd; echo $HOME $USER; echo to stderr >&2'
	ok
	[ "$output" = "joe
joe extra
/home/joe
/home/joe joe" ]
	[ "$stderr" = "to stderr" ]
}

@test "every spelling of the course and of old versions runs the program" {
	gctl "${as_joe[@]}" --execute '/bin/echo "a  b" | tr a-z A-Z' --wait-stdout
	ok
	[ "$output" = "A  B" ]
	gctl execute --image /bin/echo "${as_joe[@]}" --wait-exit --wait-stdout -- one "two  three"
	ok
	[ "$output" = "one two  three" ]
	run VBoxManage guestcontrol execute box "${as_joe[@]}" --wait-stdout -- /bin/echo hello
	ok
	[ "$output" = hello ]
	run VBoxManage guestcontrol execute box /bin/echo "${as_joe[@]}" --arguments "'x  y' z" --wait-for exit,stdout
	ok
	[ "$output" = "x  y z" ]
	gctl run "${as_joe[@]}" -- /bin/echo --timeout -v
	ok
	[ "$output" = "--timeout -v" ]
}

@test "the exit status says how the program ended" {
	gctl run "${as_joe[@]}" -- /bin/sh -c 'exit 3'
	[ "$status" -eq 35 ]
	gctl run "${as_joe[@]}" -- /bin/sh -c 'exit 93'
	[ "$status" -eq 125 ]
	gctl run "${as_joe[@]}" -- /bin/sh -c 'exit 255'
	[ "$status" -eq 126 ]
	gctl execute --image /bin/false "${as_joe[@]}" --wait-exit
	[ "$status" -eq 16 ]
	gctl run "${as_joe[@]}" -- /bin/sh -c 'kill -9 $$'
	[ "$status" -eq 18 ]
	gctl run "${as_joe[@]}" --timeout 300 -- /bin/sleep 60
	[ "$status" -eq 20 ]
	gctl run --username root --password lodge -- /bin/pidof sleep
	[ "$status" -eq 33 ] # it was ended
}

@test "a wrong password, an unknown user and a missing program are errors in VirtualBox's words" {
	gctl run --username joe --password wrong -- /bin/true
	fails 1 "The specified user was not able to logon on guest"
	gctl run --username nobody-here --password x -- /bin/true
	fails 1 "The specified user was not able to logon on guest"
	[[ $stderr == *"VBOX_E_IPRT_ERROR (0x80bb0005)"* ]]
	gctl run --username joe -- /bin/true
	fails 1 "not able to logon"
	gctl run "${as_joe[@]}" -- /bin/no-such-thing
	fails 1 "The specified file was not found on guest"
	gctl run "${as_joe[@]}" -- /etc/passwd
	fails 1 "not an executable format"
}

@test "a password comes from a file or standard input and is in no process list" {
	printf "se cret'1\n" >pw
	gctl run --username joe --passwordfile pw -- /bin/id -un
	ok
	[ "$output" = joe ]
	run VBoxManage guestcontrol box run --username joe --passwordfile stdin -- /bin/id -un <pw
	ok
	[ "$output" = joe ]
	gctl run --username joe --passwordfile nowhere -- /bin/id
	fails 1 'Failed to open password file "nowhere"'
	VBoxManage guestcontrol box run --username joe --password "se cret'1" -- /bin/sleep 2 3>&- &
	sleeper=$!
	wait_for 10 in_guest_runs "sleep 2"
	run pgrep -af 'se cret'
	[ "$status" -eq 1 ]
	gctl run --username root --password lodge -- /bin/sh -c 'cat /proc/*/cmdline /proc/*/environ 2>/dev/null | tr "\0" " " | grep -c "se [c]ret"'
	[ "$output" = 0 ]
	grep -rqF "se cret" "$LODGE_HOME" "$HOME/VirtualBox VMs" && false
	wait "$sleeper"
}

in_guest_runs() { # TEXT
	VBoxManage guestcontrol box run --username root --password lodge -- /bin/sh -c "ps -o args | grep -q '^[^ ]*$1\$'"
}

@test "output arrives while the program runs, and a large one arrives whole" {
	mkfifo pipe
	VBoxManage guestcontrol box run "${as_joe[@]}" -- /bin/sh -c 'echo first; sleep 30; echo last' >pipe 3>&- &
	exec 5<pipe
	timeout 10 head -n 1 <&5 | grep -qx first
	exec 5<&-
	kill $! && wait $! || [ $? -eq 22 ]
	gctl run "${as_joe[@]}" -- /bin/sh -c 'head -c 3000000 /dev/zero | tr "\0" x'
	ok
	[ "${#output}" -eq 3000000 ]
}

@test "standard input is only read with --stdin" {
	run VBoxManage guestcontrol box run "${as_joe[@]}" -- /bin/cat <<<"not this"
	ok
	[ -z "$output" ]
	run VBoxManage guestcontrol box run "${as_joe[@]}" --stdin -- /bin/cat <<<"but this"
	ok
	[ "$output" = "but this" ]
	head -c 1000000 /dev/urandom >random
	VBoxManage guestcontrol box run "${as_joe[@]}" --stdin -- /bin/md5sum <random | grep -q "^$(md5sum <random | cut -d' ' -f1)"
}

@test "environment and working directory" {
	gctl run "${as_joe[@]}" --putenv "A=it's" --putenv 'B=x y' --cwd /tmp -- /bin/sh -c 'echo "$A $B"; pwd'
	ok
	[ "$output" = "it's x y
/tmp" ]
}

@test "files are copied both ways, whole and with their mode; directories need --recursive" {
	mkdir -p tree/sub
	head -c 500000 /dev/urandom >tree/blob
	echo small >"tree/sub/with blank"
	chmod 751 tree/blob
	gctl copyto "${as_joe[@]}" tree/blob /home/joe/blob
	ok
	gctl copyto "${as_joe[@]}" tree /home/joe/
	fails 1 "--recursive"
	gctl copyto "${as_joe[@]}" --recursive tree /home/joe/
	ok
	gctl copyfrom "${as_joe[@]}" --recursive --target-directory "$PWD" /home/joe/tree/
	mv tree mine
	gctl copyfrom "${as_joe[@]}" --recursive /home/joe/tree "$PWD"
	ok
	diff -r tree mine
	[ "$(stat -c %a tree/blob)" = 751 ]
	gctl copyfrom "${as_joe[@]}" /etc/shadow here
	fails 1 "Permission denied"
	[ ! -e here ]
	gctl copyto "${as_joe[@]}" tree/blob /root/blob
	fails 1 "/root/blob"
	gctl copyfrom "${as_joe[@]}" /no/such here
	fails 1 "No such file or directory"
}

@test "mkdir, mktemp, mv, stat, rm and rmdir do what they are called" {
	gctl mkdir "${as_joe[@]}" --parents --mode 700 /home/joe/a/b
	ok
	gctl stat "${as_joe[@]}" /home/joe/a/b
	ok
	[[ $output == *"Type: directory"* && $output == *"Mode: 0700"* && $output == *"1000/joe"* ]]
	gctl mktemp "${as_joe[@]}" --tmpdir /home/joe/a fileXXXXXX
	ok
	name=${output#File name: }
	[[ $name == /home/joe/a/file?????? ]]
	gctl mv "${as_joe[@]}" "$name" "/home/joe/a/b/new name"
	ok
	gctl stat "${as_joe[@]}" "/home/joe/a/b/new name"
	ok
	gctl rmdir "${as_joe[@]}" /home/joe/a/b
	fails 1 "not empty"
	gctl rm "${as_joe[@]}" "/home/joe/a/b/new name"
	ok
	gctl stat "${as_joe[@]}" "/home/joe/a/b/new name"
	fails 1 "No such file or directory on guest"
	gctl rmdir "${as_joe[@]}" --recursive /home/joe/a
	ok
	gctl mkdir "${as_joe[@]}" /root/x
	fails 1 "ermission denied"
}

@test "what was started goes on, is listed and can be closed" {
	gctl start "${as_joe[@]}" --session-name mine -- /bin/sleep 1000
	ok
	pid=$(sed -n "s/.*PID \([0-9]*\).*/\1/p" <<<"$output")
	gctl list all
	ok
	[[ $output == *"Name=mine"* && $output == *"PID=$pid "*"started: /bin/sleep 1000"* ]]
	gctl closeprocess --session-name mine "$pid"
	ok
	wait_for 10 eval '! in_guest_runs "sleep 1000"'
	gctl closesession --session-name mine
	ok
	gctl list sessions
	ok
	[ "$output" = "No active guest sessions found" ]
	gctl closesession --session-id 77
	fails 1 "not found"
}

@test "a killed client leaves nothing running in the guest, and the next one is served" {
	VBoxManage guestcontrol box run "${as_joe[@]}" -- /bin/sleep 2000 3>&- &
	wait_for 10 in_guest_runs "sleep 2000"
	kill -9 $!
	wait_for 10 eval '! in_guest_runs "sleep 2000"'
	gctl list sessions
	[ "$output" = "No active guest sessions found" ]
}

@test "after a copy whose client is killed or interrupted nothing is in the way of the next" {
	head -c 30000000 /dev/urandom >large
	for signal in KILL INT; do
		VBoxManage guestcontrol box copyto "${as_joe[@]}" "$PWD/large" /home/joe/large 3>&- &
		wait_for 20 in_guest_is 'ls -A /home/joe | grep -q .'
		kill -s $signal $!
		wait $! || true
		wait_for 10 eval '[ "$(VBoxManage guestcontrol box list sessions)" = "No active guest sessions found" ]'
		gctl run "${as_joe[@]}" -- /bin/echo next
		[ "$output" = next ]
		in_guest_is 'rm -rf /home/joe/large'
	done
	head -c 1000000 large >small
	gctl copyto "${as_joe[@]}" "$PWD/small" /home/joe/small
	ok
	in_guest_is '[ $(wc -c </home/joe/small) = 1000000 ]'
}

@test "an agent that hangs is an error when its time is over, and is found again" {
	agent=$(in_guest_says 'pidof lodge-agent | tr " " "\n" | sort -n | head -n 1')
	VBoxManage guestcontrol box run --username root --password lodge -- /bin/sh -c "(sleep 22; kill -CONT $agent) >/dev/null 2>&1 & sleep 1; kill -STOP $agent" &
	sleep 3
	start=$SECONDS
	gctl run "${as_joe[@]}" -- /bin/true
	fails 1 "did not answer in time"
	[[ $stderr == *"VBOX_E_TIMEOUT"* ]]
	[ $((SECONDS - start)) -lt 30 ]
	wait_for 60 VBoxManage guestcontrol box run "${as_joe[@]}" -- /bin/true
}

@test "a folder to be mounted by itself is, where it was asked for, and is not any more when it is removed" {
	mkdir "$BATS_TEST_TMPDIR/auto"
	echo from-host >"$BATS_TEST_TMPDIR/auto/file"
	VBoxManage sharedfolder add box --name auto --hostpath "$BATS_TEST_TMPDIR/auto" --transient --automount
	VBoxManage sharedfolder add box --name other --hostpath "$BATS_TEST_TMPDIR/auto" --transient --automount \
		--auto-mount-point "/root/a place"
	wait_for 20 in_guest_is "[ \$(cat /media/sf_auto/file) = from-host ]"
	wait_for 20 in_guest_is '[ "$(cat "/root/a place/file")" = from-host ]'
	in_guest_is "[ \$(grep -c ' vboxsf ' /proc/mounts) = 2 ]"
	VBoxManage sharedfolder remove box --name auto --transient
	VBoxManage sharedfolder remove box --name other --transient
	wait_for 20 in_guest_is "! grep -q ' vboxsf ' /proc/mounts"
}

in_guest_is() { # TEST of the guest's shell
	VBoxManage guestcontrol box run --username root --password lodge -- /bin/sh -c "$1"
}

@test "a balloon takes memory from the guest and gives it back, with the kernel's own driver" {
	free=$(mem_free)
	VBoxManage controlvm box guestmemoryballoon 48
	wait_for 20 eval '[ $(mem_free) -lt $((free - 40000)) ]'
	VBoxManage controlvm box guestmemoryballoon 0
	wait_for 20 eval '[ $(mem_free) -gt $((free - 10000)) ]'
}

mem_free() { # in KiB
	VBoxManage guestcontrol box run --username root --password lodge -- /bin/sed -n 's/MemFree: *\([0-9]*\).*/\1/p' /proc/meminfo
}

@test "eight clients at once each get their own answer" {
	for i in 1 2 3 4 5 6 7 8; do
		VBoxManage guestcontrol box run "${as_joe[@]}" -- /bin/sh -c "sleep 0.$i; echo answer $i" >"out$i" 3>&- &
	done
	wait
	for i in 1 2 3 4 5 6 7 8; do [ "$(cat "out$i")" = "answer $i" ]; done
}

@test "a paused machine is refused, and answers again when it is resumed" {
	VBoxManage controlvm box pause
	gctl run "${as_joe[@]}" -- /bin/true
	VBoxManage controlvm box resume
	fails 1 'Machine "box" is not running (currently paused)!'
	gctl run "${as_joe[@]}" -- /bin/echo again
	[ "$output" = again ]
}

clock_is() { # WHAT SECONDS: how far the guest's WHAT is behind the host's time is at most SECONDS
	local behind
	case $1 in
	clock) behind=$(in_guest_says 'date +%s') ;;
	rtc) behind=$(in_guest_says 'cat /sys/class/rtc/rtc0/since_epoch') ;;
	esac
	behind=$(($(date +%s) - behind))
	echo "the guest's $1 is $behind s behind"
	[ "${behind#-}" -le "$2" ]
}

@test "after a pause and after a saved state the guest has the host's time again, in its clock and its RTC" {
	clock_is clock 1
	VBoxManage controlvm box pause
	sleep 3
	VBoxManage controlvm box resume
	wait_for 5 clock_is clock 1
	clock_is rtc 1
	VBoxManage controlvm box savestate 2>/dev/null
	sleep 3
	VBoxManage startvm box >/dev/null
	wait_for 5 clock_is clock 1
	clock_is rtc 1
}

@test "a guest that is not to get the host's time stays behind, and its RTC with it" {
	VBoxManage setextradata box VBoxInternal/Devices/VMMDev/0/Config/GetHostTimeDisabled 1
	VBoxManage controlvm box savestate 2>/dev/null
	sleep 4
	VBoxManage startvm box >/dev/null
	in_guest_says true
	sleep 1
	run ! clock_is clock 3
	run ! clock_is rtc 3
}
