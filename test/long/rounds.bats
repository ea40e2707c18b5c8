#!/usr/bin/env bats
# Endurance of the machine's life cycle, through VBoxManage.

load ../guest/common

setup_file() { setup_file_common; }

setup() {
	console=$BATS_TEST_TMPDIR/console
	export HOME=$BATS_TEST_TMPDIR LODGE_HOME=$BATS_TEST_TMPDIR/lodge
	make_machine vm
}

teardown() {
	for vm in $(VBoxManage list runningvms | cut -d'"' -f2); do VBoxManage controlvm "$vm" poweroff >/dev/null 2>&1 || true; done
}

make_machine() {
	VBoxManage createvm --name "$1" --ostype Linux26_64 --register
	VBoxManage modifyvm "$1" --memory 128 --nic1 nat
	VBoxManage storagectl "$1" --name IDE --add ide
	VBoxManage storageattach "$1" --storagectl IDE --port 1 --device 0 --type dvddrive --medium "$ISO"
}

state() { VBoxManage showvminfo "$1" --machinereadable | sed -n 's/^VMState="\(.*\)"/\1/p'; }

is() { [[ $(state "$1") == "$2" ]]; }

# A function: a shell with the pattern in its own command line would find itself.
no_process() { ! pgrep -f "lodge-vm.*$LODGE_HOME" >/dev/null; }

pid_of() { pgrep -f "lodge-vm.*$LODGE_HOME" | head -n 1; }

@test "200 rounds of start and power-off leave no process, no lock and no file behind" {
	files=$(find "$LODGE_HOME" | wc -l)
	for ((i = 0; i < 200; i++)); do
		VBoxManage startvm vm --type headless >/dev/null
		VBoxManage controlvm vm poweroff 2>/dev/null
		[ "$(state vm)" = poweroff ]
	done
	wait_for 10 no_process
	[ "$(find "$LODGE_HOME" | wc -l)" -le $((files + 8)) ]
}

@test "a machine killed at any moment is aborted and starts again" {
	for delay in 0 0.01 0.05 0.1 0.2 0.5 1 2 4; do
		VBoxManage startvm vm --type headless >/dev/null
		sleep "$delay"
		kill -9 "$(pid_of)"
		wait_for 5 is vm aborted
	done
	for ((i = 0; i < 20; i++)); do
		VBoxManage startvm vm --type headless >/dev/null 2>&1 3>&- &
		starter=$!
		sleep "0.0$((i % 10))"
		pkill -9 -f "lodge-vm.*$LODGE_HOME" || true
		wait $starter || true
		VBoxManage controlvm vm poweroff >/dev/null 2>&1 || true
	done
	VBoxManage startvm vm --type headless
	[ "$(state vm)" = running ]
	VBoxManage controlvm vm poweroff
	[ "$(state vm)" = poweroff ]
}

@test "two machines run at once and serve their own pages" {
	make_machine other
	VBoxManage modifyvm vm --natpf1 "web,tcp,127.0.0.1,$(free_port),,80"
	VBoxManage modifyvm other --natpf1 "web,tcp,127.0.0.1,$(free_port),,80"
	VBoxManage startvm vm --type headless
	VBoxManage startvm other --type headless
	for vm in vm other; do
		port=$(VBoxManage showvminfo $vm --machinereadable | sed -n 's/^Forwarding(0)="web,tcp,127.0.0.1,\([0-9]*\),.*/\1/p')
		wait_for 150 curl -s --max-time 3 -o "$BATS_TEST_TMPDIR/page.$vm" "http://127.0.0.1:$port/"
		grep -q 'Hello from a Lodge guest' "$BATS_TEST_TMPDIR/page.$vm"
	done
}
