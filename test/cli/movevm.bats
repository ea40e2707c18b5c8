#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
load common

# A machine with a disk in its folder that hangs on a snapshot, and another disk elsewhere.
make_tree() { # NAME MIB-OF-DATA
	make_vm "$1"
	folder="$HOME/VirtualBox VMs/$1"
	truncate -s $(($2 + 5))M data.raw
	dd if=/dev/urandom of=data.raw bs=1M count="$2" conv=notrunc status=none
	VBoxManage convertfromraw data.raw "$folder/disk.vdi" 2>/dev/null
	VBoxManage createmedium --filename out.vdi --size 5 >/dev/null 2>&1
	VBoxManage storagectl "$1" --name SATA --add sata --portcount 2
	VBoxManage storageattach "$1" --storagectl SATA --port 0 --type hdd --medium "$folder/disk.vdi"
	VBoxManage storageattach "$1" --storagectl SATA --port 1 --type hdd --medium out.vdi
	VBoxManage snapshot "$1" take one >/dev/null 2>&1
	mkdir "$folder/Logs"
	echo log >"$folder/Logs/VBox.log"
	ln -s ../somewhere "$folder/link"
}

whole_at() { # NAME FOLDER: all of it is there and in use, and nowhere else
	[ "$(mr "$1" CfgFile)" = "$2/$1.vbox" ]
	[ "$(mr "$1" SnapFldr)" = "$2/Snapshots" ]
	[ -e "$2/$1.vbox" ]
	[ "$(cat "$2/Logs/VBox.log")" = log ]
	[ -L "$2/link" ]
	[[ $(mr "$1" SATA-0-0) == "$2/Snapshots/"* ]]
	VBoxManage clonemedium "$(mr "$1" SATA-0-0)" check.raw --format RAW >/dev/null 2>&1
	cmp data.raw check.raw
	VBoxManage closemedium check.raw --delete 2>/dev/null
	[ -e out.vdi ]
	[ "$(VBoxManage list hdds | grep -c inaccessible)" = 0 ]
}

other_file_system() {
	other=/dev/shm/lodge-move-$$-$BATS_TEST_NUMBER
	mkdir "$other" 2>/dev/null || skip "there is no /dev/shm to write to"
	[ "$(stat -c %d /dev/shm)" != "$(stat -c %d "$HOME")" ] || skip "/dev/shm is no file system of its own"
}

clear_other() {
	rm -rf "${other:?}"
}

@test "a machine moves on its file system, with its disks, snapshots and logs" {
	make_tree web 1
	vbm movevm web --folder new/place
	says "Machine has been successfully moved into $HOME/new/place"
	[[ $stderr == 0%...*100% ]]
	whole_at web "$HOME/new/place/web"
	[ ! -e "$folder" ]
	vbm snapshot web restore one
	succeeds
	whole_at web "$HOME/new/place/web"
	vbm movevm web --type basic
	succeeds
	whole_at web "$folder"
	VBoxManage unregistervm web
	VBoxManage registervm "$folder/web.vbox"
	VBoxManage unregistervm web --delete 2>/dev/null
	[ "$(cd "$folder" && echo *)" = link ]
}

@test "a machine moves to another file system, and its old folder goes" {
	make_tree web 1
	other_file_system
	vbm movevm web --folder "$other"
	succeeds
	whole_at web "$other/web"
	[ ! -e "$folder" ]
	VBoxManage unregistervm web --delete 2>/dev/null
	clear_other
}

@test "a machine is not moved onto something, into itself, or nowhere" {
	make_tree web 1
	mkdir -p there/web
	vbm movevm web --folder there
	fails_with 1 "exists already"
	vbm movevm web
	fails_with 1 "is in '$folder' already"
	vbm movevm web --folder "$folder/sub"
	fails_with 1 "into its own folder"
	vbm movevm web --folder /proc/none
	fails_with 1 "Move VM failed"
	vbm movevm none --folder x
	fails_with 1 "Could not find a registered machine"
	vbm movevm web --type extended
	fails_with 2 "there is 'basic'"
	vbm movevm
	fails_with 2 "VM name required"
	whole_at web "$folder"
}

@test "a move that is killed is undone by the next command, which says so; one that is cancelled at once" {
	make_tree web 300
	other_file_system
	VBoxManage movevm web --folder "$other" >/dev/null 2>&1 &
	until [ -s "$other/web/disk.vdi" ]; do sleep 0.005; done
	kill -KILL $!
	! wait $!
	vbm list vms
	[[ $stderr == *"moving it had been interrupted and was undone"* ]]
	[ ! -e "$other/web" ]
	whole_at web "$folder"
	VBoxManage movevm web --folder "$other" >/dev/null 2>said &
	until [ -s "$other/web/disk.vdi" ]; do sleep 0.005; done
	kill -TERM $!
	! wait $!
	grep -q CANCELED said
	[ ! -e "$other/web" ]
	whole_at web "$folder"
	clear_other
}
