#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# Shared folders and guest properties of VBoxManage's machines: folders that come and go, both sides writing, saved
# states with open files. The guest is told what to do by scripts in a folder.

load ../guest/common

setup_file() {
	setup_file_common
	export LODGE_ENGINE=${LODGE_TEST_ENGINE:-auto}
}

setup() {
	export HOME=$BATS_TEST_TMPDIR/home LODGE_HOME=$BATS_TEST_TMPDIR/lodge
	d=$BATS_TEST_TMPDIR/work
	mkdir -p "$HOME" "$d"
}

teardown() {
	VBoxManage controlvm m poweroff >/dev/null 2>&1 || true
}

# guest SECONDS COMMAND: the guest's loop runs what lies in `todo`; its output is in $d/said.
guest() {
	turn=$((${turn:-0} + 1))
	echo "$2" >"$d/next"
	mv "$d/next" "$d/todo.$turn"
	wait_for "$1" test -e "$d/done.$turn" || { cat "$d"/said* 2>/dev/null; return 1; }
	return "$(cat "$d/done.$turn")"
}

start_machine() {
	VBoxManage createvm --name m --ostype Linux26_64 --register >/dev/null
	VBoxManage modifyvm m --memory 256 --nic1 none --uart1 0x3f8 4 --uartmode1 file "$BATS_TEST_TMPDIR/console" --boot1 dvd
	VBoxManage storagectl m --name IDE --add ide
	VBoxManage storageattach m --storagectl IDE --port 1 --device 0 --type dvddrive --medium "$ISO"
	VBoxManage sharedfolder add m --name work --hostpath "$d"
	cat >"$d/loop" <<'LOOP'
n=1
while :; do
	if [ -e /w/todo.$n ]; then
		sh /w/todo.$n >/w/said.$n 2>&1 9</tmp/fd9 || r=$?
		echo ${r:-0} >/w/tmp.$n; mv /w/tmp.$n /w/done.$n; r=; n=$((n + 1))
	fi
	sleep 0.2
done
LOOP
	VBoxManage startvm m --type headless >/dev/null
	wait_for 150 grep -q LODGE-GUEST-READY "$BATS_TEST_TMPDIR/console"
	# The shell on the screen is given its first line by the keyboard, and from then on by the folder.
	wait_for 60 type_loop
}

type_loop() {
	VBoxManage controlvm m keyboardputstring $'\nmkdir -p /w; mount -t vboxsf work /w; : >/tmp/fd9; sh /w/loop &\n'
	sleep 2
	echo true >"$d/todo.1"
	sleep 2
	[[ -e $d/done.1 ]] && turn=1
}

@test "folders come and go, both sides see the other's writes, open files survive a saved state" {
	start_machine
	vbm_says() { [[ $(VBoxManage "$@") == *"$out"* ]]; }
	out='GuestAdditionsRunLevel=1' vbm_says showvminfo m --machinereadable
	[[ $(VBoxManage guestproperty get m /VirtualBox/GuestInfo/OS/Product) == "Value: Linux" ]]
	[[ $(VBoxManage guestproperty get m /VirtualBox/GuestAdd/Version) == "Value: "[0-9]* ]]

	mkdir "$BATS_TEST_TMPDIR/extra"
	echo one >"$BATS_TEST_TMPDIR/extra/f"
	VBoxManage sharedfolder add m --name extra --hostpath "$BATS_TEST_TMPDIR/extra" --transient
	guest 30 'mkdir -p /e; mount -t vboxsf extra /e && [ "$(cat /e/f)" = one ] && echo two >/e/g'
	[[ $(cat "$BATS_TEST_TMPDIR/extra/g") == two ]]
	echo changed-by-the-host >"$BATS_TEST_TMPDIR/extra/f"
	guest 30 'sleep 1; [ "$(cat /e/f)" = changed-by-the-host ]'
	guest 30 '! ln -s x /e/link 2>/dev/null'
	VBoxManage setextradata m VBoxInternal2/SharedFoldersEnableSymlinksCreate/extra 1
	guest 30 'ln -s x /e/link'
	VBoxManage sharedfolder remove m --name extra --transient
	guest 30 '! cat /e/f 2>/tmp/why; cat /tmp/why; grep -qi "medium" /tmp/why'
	VBoxManage sharedfolder add m --name extra --hostpath "$BATS_TEST_TMPDIR/extra" --transient
	guest 30 'sleep 1; [ "$(cat /e/f)" = changed-by-the-host ]'

	# A file that stays open over the saved state, and one that is another when the machine comes back.
	{ echo first line; seq 5000; } >"$d/open" # several pages: the guest has read one of them
	echo gone >"$d/stale"
	guest 30 'sh -c "exec 7</w/open 8</w/stale; read -r a <&7; echo \$a >/w/held; while [ ! -e /w/go ]; do sleep 0.2; done; cat <&7 >/w/rest; cat <&8 >/w/stale.out 2>/w/stale.err; echo x >/w/ended" >/dev/null 2>&1 &'
	wait_for 30 test -s "$d/held"
	VBoxManage controlvm m savestate >/dev/null 2>&1
	[[ $(VBoxManage guestproperty get m /VirtualBox/GuestInfo/OS/Product) == "Value: Linux" ]]
	rm "$d/stale"
	echo another >"$d/stale"
	VBoxManage startvm m --type headless >/dev/null
	touch "$d/go"
	wait_for 60 test -e "$d/ended"
	cmp "$d/rest" <(seq 5000)
	[[ ! -s $d/stale.out ]] && grep -qi "input/output error" "$d/stale.err"
	guest 30 'echo after >/w/after'
	[[ $(cat "$d/after") == after ]]
}
