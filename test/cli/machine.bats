#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
load common

@test "--version prints one line of VirtualBox 7.0 form" {
	vbm --version
	succeeds
	[[ $output =~ ^7\.0\.[1-9][0-9]*r[0-9]+$ ]]
	[ -z "$stderr" ]
	for spelling in -V -v -version; do
		vbm $spelling
		[[ $output =~ ^7\.0\.10r ]]
	done
}

@test "--version needs no home directory" {
	HOME=/nonexistent LODGE_HOME=/nonexistent/x vbm --version
	succeeds
}

@test "without a command the usage goes to stdout and all is well" {
	vbm
	succeeds
	[[ $output == *Usage* ]]
	[ -z "$stderr" ]
}

@test "commands lists every verb once" {
	vbm commands
	succeeds
	for verb in createvm modifyvm startvm controlvm showvminfo list storageattach; do has_line $verb; done
	[ "$(sort <<<"$output" | uniq -d)" = "" ]
}

@test "help of a command shows an example" {
	for verb in $(VBoxManage commands); do
		vbm help "$verb"
		succeeds
		[[ $output == Usage* ]]
	done
	vbm help createvm
	[[ $output == *Example*"--ostype Debian_64"* ]]
}

@test "an invalid command is a syntax error" {
	vbm frobnicate
	fails_with 2 "VBoxManage: error: Invalid command 'frobnicate'"
	[ -z "$output" ]
	vbm telemetry list
	fails_with 2 "Invalid command 'telemetry'"
}

@test "errors carry the name the program was called by" {
	vboxmanage=$BIN/vboxmanage
	[ -e "$vboxmanage" ]
	run --separate-stderr "$vboxmanage" frobnicate
	[[ $stderr == *"vboxmanage: error: Invalid command"* ]]
}

@test "createvm --register prints what VirtualBox prints" {
	vbm createvm --name web1 --ostype Debian_64 --register
	succeeds
	uuid=$(sed -n 's/^UUID: //p' <<<"$output")
	[[ $uuid =~ ^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$ ]]
	says "Virtual machine 'web1' is created and registered.
UUID: $uuid
Settings file: '$HOME/VirtualBox VMs/web1/web1.vbox'"
	[ -f "$HOME/VirtualBox VMs/web1/web1.vbox" ]
	vbm list vms
	says "\"web1\" {$uuid}"
}

@test "createvm without --register leaves a file that registervm takes" {
	vbm createvm --name web1 --ostype Debian_64
	succeeds
	[[ $output == "Virtual machine 'web1' is created."* ]]
	vbm list vms
	says ""
	vbm registervm "VirtualBox VMs/web1/web1.vbox"
	says ""
	[ "$(mr web1 ostype)" = "Debian (64-bit)" ]
}

@test "createvm takes a base folder, groups and a UUID" {
	vbm createvm --name web1 --basefolder "$HOME/elsewhere" --groups /a,/b --register \
		--uuid 11111111-2222-4333-8444-555555555555
	succeeds
	has_line "UUID: 11111111-2222-4333-8444-555555555555"
	has_line "Settings file: '$HOME/elsewhere/web1/web1.vbox'"
	vbm list groups
	says '"/"
"/a"
"/b"'
}

@test "createvm refuses a second machine of the same name" {
	make_vm web1
	vbm createvm --name web1 --register
	fails_with 1 "VBoxManage: error: Machine settings file '$HOME/VirtualBox VMs/web1/web1.vbox' already exists"
	[[ $stderr == *"Details: code VBOX_E_FILE_ERROR (0x80bb0004), component MachineWrap, interface IMachine, callee nsISupports"* ]]
	[[ $stderr == *'Context: "'*'" at line '*' of file '* ]]
	vbm createvm --name web1 --register --basefolder "$HOME/x"
	fails_with 1 "already exists"
	[ ! -e "$HOME/x/web1" ]
}

@test "createvm with an unknown OS type leaves nothing behind" {
	vbm createvm --name web1 --ostype Frobnix --register
	fails_with 1 "'Frobnix' is not a valid Guest OS type"
	[ ! -e "$HOME/VirtualBox VMs/web1" ]
	vbm list vms
	says ""
}

@test "createvm in a folder that cannot be made leaves nothing behind" {
	touch file
	vbm createvm --name web1 --basefolder "$HOME/file" --register
	fails_with 1 "VBOX_E_FILE_ERROR"
	vbm list vms
	says ""
}

@test "createvm needs a name that can be a file name" {
	vbm createvm --register
	fails_with 2 "Parameter --name is required"
	vbm createvm --name ../evil --register
	fails_with 1 "Invalid machine name"
	vbm createvm --name "" --register
	fails_with 1 "Invalid machine name"
}

@test "createvm --default gives controllers and the memory of the system" {
	vbm createvm --name web1 --ostype Debian_64 --default --register
	succeeds
	[ "$(mr web1 memory)" = 2048 ]
	[ "$(mr web1 storagecontrollername0)" = IDE ]
	[ "$(mr web1 IDE-1-0)" = emptydrive ]
}

@test "a machine is found by name, UUID and UUID in braces, in any case" {
	make_vm web1
	uuid=$(mr web1 UUID)
	for id in web1 "$uuid" "{$uuid}" "${uuid^^}"; do
		vbm showvminfo "$id" --machinereadable
		succeeds
		has_line 'name="web1"'
	done
}

@test "an unknown machine is VBOX_E_OBJECT_NOT_FOUND" {
	vbm showvminfo nope
	fails_with 1 "VBoxManage: error: Could not find a registered machine named 'nope'"
	[[ $stderr == *"Details: code VBOX_E_OBJECT_NOT_FOUND (0x80bb0001), component VirtualBoxWrap, interface IVirtualBox, callee nsISupports"* ]]
	vbm showvminfo 11111111-2222-4333-8444-555555555555
	fails_with 1 "Could not find a registered machine with UUID {11111111-2222-4333-8444-555555555555}"
	for verb in "modifyvm nope --memory 64" "startvm nope" "controlvm nope poweroff" "unregistervm nope" \
		"storagectl nope --name a --add ide" "setextradata nope a b" "guestproperty get nope a" "snapshot nope list"; do
		# shellcheck disable=SC2086 # words
		vbm $verb
		fails_with 1 "VBOX_E_OBJECT_NOT_FOUND"
	done
}

@test "unregistervm keeps the files and registervm brings the whole machine back" {
	make_vm web1
	VBoxManage modifyvm web1 --memory 333 --natpf1 ssh,tcp,127.0.0.1,2222,,22 --uart1 0x3f8 4 --uartmode1 file /tmp/x
	VBoxManage createmedium --filename a.vdi --size 5 2>/dev/null >/dev/null
	VBoxManage storagectl web1 --name SATA --add sata --portcount 2
	VBoxManage storageattach web1 --storagectl SATA --port 1 --type hdd --medium a.vdi
	VBoxManage setextradata web1 key value
	VBoxManage guestproperty set web1 /a/b c
	before=$(VBoxManage showvminfo web1 --machinereadable | grep -v VMStateChangeTime)
	vbm unregistervm web1
	says ""
	vbm list vms
	says ""
	vbm registervm "$HOME/VirtualBox VMs/web1/web1.vbox"
	says ""
	diff <(echo "$before") <(VBoxManage showvminfo web1 --machinereadable | grep -v VMStateChangeTime)
	vbm getextradata web1 key
	says "Value: value"
	vbm guestproperty get web1 /a/b
	says "Value: c"
}

@test "unregistervm --delete removes the machine and its disks, and nothing of other people" {
	make_vm web1
	make_iso d.iso
	VBoxManage createmedium --filename "VirtualBox VMs/web1/a.vdi" --size 5 2>/dev/null >/dev/null
	VBoxManage storagectl web1 --name SATA --add sata
	VBoxManage storageattach web1 --storagectl SATA --port 0 --type hdd --medium "VirtualBox VMs/web1/a.vdi"
	VBoxManage storageattach web1 --storagectl SATA --port 1 --type dvddrive --medium d.iso
	touch "VirtualBox VMs/web1/precious"
	vbm unregistervm --delete web1
	says ""
	[ "$stderr" = "0%...10%...20%...30%...40%...50%...60%...70%...80%...90%...100%" ]
	[ "$(ls "VirtualBox VMs/web1")" = precious ]
	[ -f d.iso ]
	vbm list hdds
	says ""
	make_vm web2
	VBoxManage unregistervm web2 --delete 2>/dev/null
	[ ! -e "VirtualBox VMs/web2" ]
}

@test "registervm refuses files that are not settings files" {
	echo '<VirtualBox/>' >a.vbox
	vbm registervm a.vbox
	fails_with 1 "Could not load the settings file '$HOME/a.vbox'"
	echo '{"lodge":1,"uuid":"x","name":"a","settings":{}}' >a.vbox
	vbm registervm a.vbox
	fails_with 1 "Could not load the settings file"
	echo '{"lodge":1,"uuid":"11111111-2222-4333-8444-555555555555","name":"a","settings":{"memory":"-1"}}' >a.vbox
	vbm registervm a.vbox
	fails_with 1 "Could not load the settings file"
	vbm registervm missing.vbox
	fails_with 1 "missing.vbox"
	vbm list vms
	says ""
}

@test "a machine's name may have blanks, quotes and any letters" {
	vbm createvm --name 'Zoë "the" VM 100%' --register
	succeeds
	vbm showvminfo 'Zoë "the" VM 100%' --machinereadable
	has_line 'name="Zoë \"the\" VM 100%"'
	vbm list vms
	[[ $output == '"Zoë "the" VM 100%" {'* ]]
}

@test "the default machine folder can be set and is what list systemproperties says" {
	vbm list systemproperties
	has_line "Default machine folder:          $HOME/VirtualBox VMs"
	vbm setproperty machinefolder "$HOME/machines"
	says ""
	vbm list systemproperties
	has_line "Default machine folder:          $HOME/machines"
	make_vm web1
	[ -f "$HOME/machines/web1/web1.vbox" ]
	VBoxManage setproperty machinefolder default
	vbm list systemproperties
	has_line "Default machine folder:          $HOME/VirtualBox VMs"
}

@test "a machine that was being deleted or created when the command was killed is whole or gone" {
	make() {
		make_vm web1
		VBoxManage createmedium --filename "$HOME/VirtualBox VMs/web1/a.vdi" --size 5 >/dev/null 2>&1
		VBoxManage storagectl web1 --name SATA --add sata
		VBoxManage storageattach web1 --storagectl SATA --port 0 --type hdd --medium "$HOME/VirtualBox VMs/web1/a.vdi"
		mkdir -p "$HOME/VirtualBox VMs/web1/Logs"
		echo x >"$HOME/VirtualBox VMs/web1/Logs/VBox.log"
	}
	# What a kill between the inventory and the files leaves, as it is written down.
	make
	cp -r "$HOME/VirtualBox VMs/web1" kept
	VBoxManage unregistervm web1 --delete 2>/dev/null
	[ -z "$(find "$HOME/VirtualBox VMs" "$LODGE_HOME/run/media" -mindepth 1)" ]
	cp -r kept "$HOME/VirtualBox VMs/web1"
	(cd "$HOME/VirtualBox VMs/web1" && printf '%s\n' deletion "$PWD/web1.vbox" "$PWD/a.vdi" "$PWD/Logs/VBox.log" \
		"$PWD/Logs" "$PWD/Snapshots" "$PWD") >"$LODGE_HOME/run/media/note"
	vbm list vms
	[[ $stderr == *"An interrupted deletion of '$HOME/VirtualBox VMs/web1/web1.vbox' was completed"* ]]
	[ -z "$(find "$HOME/VirtualBox VMs" "$LODGE_HOME/run/media" -mindepth 1)" ]
	# Killed while the settings were written: the half of them goes with the machine, and with a creation.
	make
	echo half >"$HOME/VirtualBox VMs/web1/web1.vbox-tmp12345"
	VBoxManage unregistervm web1 --delete 2>/dev/null
	[ -z "$(find "$HOME/VirtualBox VMs" -mindepth 1)" ]
	mkdir "$HOME/VirtualBox VMs/web1"
	echo half >"$HOME/VirtualBox VMs/web1/web1.vbox-tmp12345"
	printf '%s\n' creation "$HOME/VirtualBox VMs/web1/web1.vbox" "$HOME/VirtualBox VMs/web1" >"$LODGE_HOME/run/media/note"
	VBoxManage list vms 2>/dev/null
	[ -z "$(find "$HOME/VirtualBox VMs" "$LODGE_HOME/run/media" -mindepth 1)" ]
	# Killed before the inventory was changed: nothing is lost.
	make
	(cd "$HOME/VirtualBox VMs/web1" && printf '%s\n' deletion "$PWD/web1.vbox" "$PWD/Logs/VBox.log" "$PWD") \
		>"$LODGE_HOME/run/media/note"
	vbm list vms
	[ -z "$stderr" ]
	[ -f "$HOME/VirtualBox VMs/web1/Logs/VBox.log" ]
	for ms in 1 2 3 4 5 6 8 10 12; do
		VBoxManage unregistervm web1 --delete >/dev/null 2>&1 &
		sleep "0.$(printf %03d $ms)"
		kill -KILL $! 2>/dev/null || true
		wait $! || true
		if [ -n "$(VBoxManage list vms)" ]; then
			[ -f "$HOME/VirtualBox VMs/web1/Logs/VBox.log" ]
			[ -f "$HOME/VirtualBox VMs/web1/a.vdi" ]
			VBoxManage unregistervm web1 --delete 2>/dev/null
		fi
		[ -z "$(find "$HOME/VirtualBox VMs" "$LODGE_HOME/run/media" -mindepth 1)" ]
		VBoxManage createvm --name web1 --register >/dev/null 2>&1 &
		sleep "0.$(printf %03d $ms)"
		kill -KILL $! 2>/dev/null || true
		wait $! || true
		[ -n "$(VBoxManage list vms)" ] || make_vm web1
		VBoxManage unregistervm web1 --delete 2>/dev/null
		make
	done
}

@test "an inventory of a newer version is left alone" {
	make_vm web1
	sqlite3 "$LODGE_HOME/inventory.db" "PRAGMA user_version=99" 2>/dev/null ||
		python3 -c "import sqlite3,sys; sqlite3.connect(sys.argv[1]).execute('PRAGMA user_version=99')" \
			"$LODGE_HOME/inventory.db"
	vbm list vms
	fails_with 1 "newer"
}

@test "the inventory is for its owner only" {
	make_vm web1
	[ "$(stat -c %a "$LODGE_HOME")" = 700 ]
	[ "$(stat -c %a "$LODGE_HOME/inventory.db")" = 600 ]
}
