#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# Shared folders and guest properties of machines, without a guest that looks at them.

load common

@test "shared folders are added, shown, changed and removed" {
	make_vm web1
	mkdir -p "$BATS_TEST_TMPDIR/src"
	vbm sharedfolder add web1 --name src --hostpath "$BATS_TEST_TMPDIR/src/"
	says ""
	vbm sharedfolder add web1 --name "a b" --hostpath /tmp --readonly --automount --auto-mount-point /mnt/a
	says ""
	vbm showvminfo web1 --machinereadable
	[[ $output == *'SharedFolderNameMachineMapping1="a b"
SharedFolderPathMachineMapping1="/tmp"
SharedFolderNameMachineMapping2="src"
SharedFolderPathMachineMapping2="'"$BATS_TEST_TMPDIR/src"'"'* ]]
	vbm showvminfo web1
	[[ $output == *"Shared folders:

Name: 'a b', Host path: '/tmp' (machine mapping), readonly, auto-mount, mount-point: '/mnt/a'
Name: 'src', Host path: '$BATS_TEST_TMPDIR/src' (machine mapping), writable"* ]]
	VBoxManage sharedfolder modify web1 --name "a b" --readonly false --automount=false
	vbm showvminfo web1
	[[ $output == *"Name: 'a b', Host path: '/tmp' (machine mapping), writable, mount-point"* ]]
	vbm sharedfolder remove web1 --name "a b"
	says ""
	VBoxManage sharedfolder remove web1 --name src
	vbm showvminfo web1
	[[ $output == *"Shared folders:              <none>"* ]]
}

@test "shared folders are a part of settings files, clones and snapshots" {
	make_vm web1
	VBoxManage sharedfolder add web1 --name src --hostpath /tmp --automount
	VBoxManage clonevm web1 --name web2 --register
	vbm showvminfo web2 --machinereadable
	[[ $output == *'SharedFolderNameMachineMapping1="src"'* ]]
	VBoxManage snapshot web1 take s
	VBoxManage sharedfolder remove web1 --name src
	VBoxManage snapshot web1 restore s
	vbm showvminfo web1 --machinereadable
	[[ $output == *'SharedFolderNameMachineMapping1="src"'* ]]
	cfg=$(sed -n 's/^CfgFile="\(.*\)"$/\1/p' <<<"$output")
	VBoxManage unregistervm web2
	VBoxManage registervm "${cfg//web1/web2}"
	vbm showvminfo web2
	[[ $output == *"Name: 'src', Host path: '/tmp' (machine mapping), writable, auto-mount"* ]]
}

@test "what cannot be a shared folder is refused in VirtualBox's words" {
	make_vm web1
	VBoxManage sharedfolder add web1 --name src --hostpath /tmp
	vbm sharedfolder add web1 --name src --hostpath /var
	fails_with 1 "Shared folder named 'src' already exists"
	vbm sharedfolder add web1 --name rel --hostpath tmp
	fails_with 1 "Shared folder path 'tmp' is not absolute"
	vbm sharedfolder add web1 --name a/b --hostpath /tmp
	fails_with 1 "Invalid name 'a/b' of a shared folder"
	vbm sharedfolder remove web1 --name nope
	fails_with 1 "Could not find a shared folder named 'nope'"
	[[ $stderr == *VBOX_E_FILE_ERROR* ]]
	vbm sharedfolder add web1 --name t --hostpath /tmp --transient
	fails_with 1 "Machine 'web1' is not currently running."
	vbm sharedfolder add web1 --hostpath /tmp
	fails_with 2 "Missing required option: --name"
	vbm sharedfolder frob web1 --name a
	fails_with 2 "Invalid parameter 'frob'"
}

@test "a running machine takes transient folders and keeps what is written to its guest properties" {
	make_vm web1
	mkdir -p "$BATS_TEST_TMPDIR/d"
	VBoxManage modifyvm web1 --memory 16 --nic1 none
	VBoxManage guestproperty set web1 /kept before
	VBoxManage guestproperty set web1 /gone x --flags TRANSIENT
	VBoxManage startvm web1 --type headless
	vbm guestproperty get web1 /kept
	says "Value: before"
	vbm guestproperty get web1 /gone
	says "No value set!"
	vbm sharedfolder add web1 --name t --hostpath "$BATS_TEST_TMPDIR/d" --transient
	says ""
	vbm sharedfolder add web1 --name t --hostpath "$BATS_TEST_TMPDIR/d" --transient
	fails_with 1 "Shared folder named 't' already exists"
	vbm sharedfolder add web1 --name u --hostpath "$BATS_TEST_TMPDIR/none" --transient
	fails_with 1 "The directory '$BATS_TEST_TMPDIR/none' of shared folder 'u' cannot be opened"
	vbm sharedfolder add web1 --name u --hostpath /tmp
	fails_with 1 "is already locked for a session"
	vbm showvminfo web1 --machinereadable
	[[ $output == *'SharedFolderNameTransientMapping1="t"
SharedFolderPathTransientMapping1="'"$BATS_TEST_TMPDIR/d"'"'* ]]
	VBoxManage sharedfolder remove web1 --name t --transient
	vbm sharedfolder remove web1 --name t --transient
	fails_with 1 "Could not find a shared folder named 't'"

	VBoxManage guestproperty wait web1 '/n*|/x' --timeout 20000 >"$BATS_TEST_TMPDIR/waited" 3>&- &
	sleep 0.3
	VBoxManage guestproperty set web1 /other 1
	VBoxManage guestproperty set web1 /new 2 --flags rdonlyguest
	wait $!
	[[ $(cat "$BATS_TEST_TMPDIR/waited") == "Name: /new, value: 2, flags: RDONLYGUEST" ]]
	VBoxManage guestproperty set web1 /transient 3 --flags TRANSRESET
	VBoxManage guestproperty unset web1 /kept
	vbm guestproperty enumerate web1 --no-timestamp
	says "/new       = '2' RDONLYGUEST
/other     = '1'
/transient = '3' TRANSIENT, TRANSRESET"
	vbm controlvm web1 setvideomodehint 1024 768 32
	says ""
	vbm controlvm web1 guestmemoryballoon 4
	says ""
	vbm controlvm web1 guestmemoryballoon 16
	fails_with 1 "A balloon of 16 MiB does not fit into a machine with 16 MiB of memory"
	VBoxManage controlvm web1 poweroff
	vbm guestproperty enumerate web1 --no-timestamp
	says "/new   = '2' RDONLYGUEST
/other = '1'"
}
