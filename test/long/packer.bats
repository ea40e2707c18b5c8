#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# Debian's own Packer, not a line changed, with its three builders: a machine made from an ISO by typing, one made from a
# box, one that is there already; and what comes out goes back into Vagrant. How a build ends that fails or is stopped.
# The guest is tools/make-small-box's but in the one test that says Debian.
# May take 2400 seconds.
load ../guest/common

setup_file() {
	command -v packer >/dev/null && command -v vagrant >/dev/null || return 0
	export FILES=$BATS_FILE_TMPDIR
	tools/make-small-box "$FILES/small.box" "$LODGE_OUT/cache"
	mkdir "$FILES/box" "$FILES/http"
	tar -C "$FILES/box" -xzf "$FILES/small.box"
	(
		export LODGE_HOME=$FILES/lodge
		"$LODGE_BIN/VBoxManage" clonemedium disk "$FILES/box/box-disk001.vmdk" "$FILES/http/disk.img" --format RAW
		VAGRANT_HOME=$FILES/vagrant vagrant version # puts the well-known key there
	)
	tools/make-iso "$FILES/boot.iso" "$LODGE_OUT/cache"
	measure_boot
}

# Packer types when so much time has passed: twice what the disc takes here and now, so that nothing is typed before
# there is a shell.
measure_boot() {
	local start=$SECONDS
	timeout 200 "$LODGE_BIN/lodge" boot --memory 256 --cdrom "$FILES/boot.iso" --serial "file:$FILES/console" \
		--display none --timeout 190 >/dev/null 2>&1 &
	wait_for 180 grep -qas LODGE-GUEST-READY "$FILES/console"
	kill $!
	wait $! || true
	export BOOT_WAIT=$(((SECONDS - start + 4) * 2))
}

setup() {
	export PATH=$LODGE_BIN:$PATH:/sbin:/usr/sbin LODGE_ENGINE=${LODGE_TEST_ENGINE:-auto}
	command -v packer >/dev/null || skip "packer is not installed: apt-get install packer"
	command -v vagrant >/dev/null || skip "vagrant is not installed"
	export HOME=$BATS_TEST_TMPDIR/home LODGE_HOME=$BATS_TEST_TMPDIR/lodge CHECKPOINT_DISABLE=1
	export VAGRANT_HOME=$FILES/vagrant VAGRANT_CHECKPOINT_DISABLE=1 VAGRANT_NO_COLOR=1
	export PACKER_LOG=1 PACKER_LOG_PATH=$HOME/packer.log
	ROOT=$PWD
	mkdir -p "$HOME"
	cd "$HOME"
	# What every template here has, and what those have that log in to the small box.
	common='"headless": true, "output_directory": "out"'
	login='"ssh_username": "root", "ssh_private_key_file": "'$VAGRANT_HOME'/insecure_private_key", "ssh_timeout": "4m",
		"shutdown_command": "shutdown -h now"'
	bare='"guest_additions_mode": "disable", "virtualbox_version_file": ""'
	iso='"iso_url": "'$FILES'/boot.iso", "iso_checksum": "sha256:'$(sha256sum "$FILES/boot.iso" | cut -d' ' -f1)'"'
	# The small box keeps its files in memory: this is on its disk, where a CD image has nothing (ECMA-119 6.2.1).
	mark='{"type": "shell", "inline": ["echo by packer | dd of=/dev/sda bs=512 seek=40"]}'
}

teardown() {
	cd /
	VBoxManage list runningvms 2>/dev/null | sed 's/^"\(.*\)" {.*/\1/' | while read -r name; do
		VBoxManage controlvm "$name" poweroff >/dev/null 2>&1 || true
	done
	[[ -z ${VAGRANT_HOME:-} ]] || rm -rf "$VAGRANT_HOME/boxes"
}

build() { # TEMPLATE [OPTION...]
	local template=$1
	shift
	run timeout 600 packer build -color=false "$@" "$template"
	echo "$output"
	[ "$status" = 0 ]
}

# No machine, no image in the inventory, no file of a machine.
nothing_left() {
	VBoxManage list vms
	VBoxManage list hdds
	[ -z "$(VBoxManage list vms; VBoxManage list hdds)" ]
	[ -z "$(find "$HOME/VirtualBox VMs" -type f 2>/dev/null)" ]
}

@test "virtualbox-iso types its boot command and exports what it made" {
	cat >t.json <<-END
		{"builders": [{"type": "virtualbox-iso", "guest_os_type": "Linux26_64", "vm_name": "made by typing", $iso, $bare, $common,
		  "communicator": "none", "disk_size": 64, "hard_drive_interface": "sata", "memory": 256, "cpus": 1,
		  "boot_wait": "${BOOT_WAIT}s", "disable_shutdown": true, "shutdown_timeout": "3m", "format": "ova",
		  "boot_command": ["echo typed-by-packer >/dev/ttyS0<enter><wait2>poweroff -f<enter>"],
		  "vboxmanage": [["modifyvm", "{{.Name}}", "--uart1", "0x3F8", "4", "--uartmode1", "file", "$HOME/serial"]]}]}
	END
	build t.json
	grep -qa typed-by-packer serial
	[ -s "out/made by typing.ova" ]
	nothing_left
	VBoxManage import -n "out/made by typing.ova"
}

# As an installation goes: an empty disk is not booted from, the disc is; what is typed fetches the system from Packer's
# HTTP server, puts it on the disk and starts again, this time from there.
@test "virtualbox-iso installs by typing, logs in, and the box it makes comes up in Vagrant" {
	echo "an answer" >answer.txt
	cat >t.json <<-END
		{"builders": [{"type": "virtualbox-iso", "guest_os_type": "Linux26_64", "vm_name": "installed", $iso, $login, $common,
		  "http_directory": "$FILES/http", "floppy_files": ["answer.txt"],
		  "disk_size": 64, "hard_drive_interface": "sata", "memory": 256, "cpus": 1, "boot_wait": "${BOOT_WAIT}s",
		  "boot_command": ["dd if=/dev/fd0 bs=1k count=64 >/dev/ttyS0<enter>",
		    "wget -qO /dev/sda http://{{.HTTPIP}}:{{.HTTPPort}}/disk.img && sync && reboot -f<enter>"],
		  "vboxmanage": [["modifyvm", "{{.Name}}", "--uart1", "0x3F8", "4", "--uartmode1", "file", "$HOME/serial"]],
		  "vboxmanage_post": [["modifyvm", "{{.Name}}", "--uart1", "off"]]}],
		 "provisioners": [$mark, {"type": "shell", "inline": ["cat .vbox_version; stat -c %s VBoxGuestAdditions.iso"]}],
		 "post-processors": [{"type": "vagrant", "output": "made.box", "vagrantfile_template": "$FILES/box/Vagrantfile"}]}
	END
	build t.json
	[[ $output == *"7.0.10$(stat -c %s "$(VBoxManage list systemproperties | sed -n 's/^Default Guest Additions ISO: *//p')")"* ]]
	nothing_left
	vagrant box add --name made made.box
	mkdir project
	cd project
	printf 'Vagrant.configure("2") { |c| c.vm.box = "made" }\n' >Vagrantfile
	timeout 300 vagrant up
	timeout 60 vagrant ssh -c "dd if=/dev/sda bs=512 skip=40 count=1" | head -c 9 | grep -q "by packer"
	timeout 120 vagrant destroy -f
	cd ..
	nothing_left
}

@test "virtualbox-ovf provisions a box by ssh and files in both directions, and makes one that it takes again" {
	head -c 8000000 /dev/urandom >big
	mkdir -p tree/sub
	echo x >tree/sub/x
	for i in $(seq 100); do echo "$i" >"tree/file $i"; done
	ovf() { # NAME SOURCE OPTIONS PROVISIONERS
		cat >"$1.json" <<-END
			{"builders": [{"type": "virtualbox-ovf", "source_path": "$2", "vm_name": "$1", $login, $bare, "headless": true,
			  "output_directory": "out-$1", "boot_wait": "1s", $3}],
			 "provisioners": [$4]}
		END
	}
	ovf first "$FILES/box/box.ovf" '"format": "ova", "import_opts": "keepallmacs", "export_opts": ["--manifest"]' "$mark,
		{\"type\": \"file\", \"source\": \"big\", \"destination\": \"/tmp/big\"},
		{\"type\": \"file\", \"source\": \"tree\", \"destination\": \"/tmp\"},
		{\"type\": \"shell\", \"inline\": [\"cat /tmp/tree/*/x\", \"ls /tmp/tree | wc -l >/tmp/count\",
			\"i=0; while [ \$i -lt 2000 ]; do echo line \$i of many; i=\$((i+1)); done\"]},
		{\"type\": \"file\", \"source\": \"/tmp/big\", \"destination\": \"back\", \"direction\": \"download\"},
		{\"type\": \"file\", \"source\": \"/tmp/count\", \"destination\": \"count\", \"direction\": \"download\"}"
	build first.json
	cmp big back
	[ "$(cat count)" = 101 ]
	[ "$(grep -c 'line .* of many' <<<"$output")" = 2000 ]
	nothing_left
	# The checksum is of the file; a machine that the guest's own shutdown command does not turn off is switched off.
	ovf second out-first/first.ova '"checksum": "sha256:'"$(sha256sum out-first/first.ova | cut -d' ' -f1)"'"' '
		{"type": "shell", "inline": ["dd if=/dev/sda bs=512 skip=40 count=1 | head -c 9"]}'
	sed -i 's/"shutdown_command": "[^"]*",//' second.json
	build second.json
	[[ $output == *"by packer"* ]]
	[ -s out-second/second.ovf ]
	nothing_left
}

@test "virtualbox-vm starts from a snapshot, takes one, exports, and leaves the machine as it was" {
	VBoxManage import "$FILES/box/box.ovf" --vsys 0 --vmname "my vm"
	VBoxManage snapshot "my vm" take base
	VBoxManage snapshot "my vm" take later
	cat >t.json <<-END
		{"builders": [{"type": "virtualbox-vm", "vm_name": "my vm", $login, $bare, $common, "boot_wait": "1s",
		  "attach_snapshot": "base", "target_snapshot": "provisioned", "force_delete_snapshot": true}],
		 "provisioners": [$mark]}
	END
	build t.json
	[ -s "out/my vm.ovf" ]
	VBoxManage snapshot "my vm" list --machinereadable >list
	grep -qx 'SnapshotName-1="later"' list
	grep -qx 'SnapshotName-2="provisioned"' list
	grep -qx 'CurrentSnapshotName="later"' list # Packer goes back to where it found the machine
	grep -qx 'VMState="poweroff"' <(VBoxManage showvminfo "my vm" --machinereadable)
	# Again: the snapshot it made is replaced.
	old=$(sed -n 's/^SnapshotUUID-2="\(.*\)"/\1/p' list)
	rm -r out
	build t.json
	VBoxManage snapshot "my vm" list --machinereadable >list
	[ "$(grep -c '"provisioned"' list)" = 1 ]
	if grep -q "$old" list; then false; fi
	# What it provisioned is in that snapshot, and not in the one it began with.
	for s in provisioned base; do
		VBoxManage snapshot "my vm" restore "$s"
		VBoxManage clonemedium disk "$(VBoxManage showvminfo "my vm" --machinereadable |
			sed -n 's/^"SATA Controller-0-0"="\(.*\)"/\1/p')" "$s.img" --format RAW
		[ "$(dd if="$s.img" bs=512 skip=40 count=1 2>/dev/null | head -c 9)" = "$([ $s = base ] || echo "by packer")" ]
	done
	# A machine without snapshots, of which nothing is kept.
	VBoxManage import "$FILES/box/box.ovf" --vsys 0 --vmname plain
	cat >t.json <<-END
		{"builders": [{"type": "virtualbox-vm", "vm_name": "plain", $login, $bare, $common, "boot_wait": "1s",
		  "skip_export": true, "keep_registered": true}],
		 "provisioners": [$mark]}
	END
	build t.json
	grep -qx 'VMState="poweroff"' <(VBoxManage showvminfo plain --machinereadable)
	[ -z "$(VBoxManage list runningvms)" ]
}

@test "a login that does not succeed is told, and the machine is switched off and removed or kept as -on-error says" {
	cat >t.json <<-END
		{"builders": [{"type": "virtualbox-ovf", "source_path": "$FILES/box/box.ovf", "vm_name": "closed", $bare, $common,
		  "ssh_username": "root", "ssh_password": "wrong", "ssh_timeout": "30s", "boot_wait": "1s"}]}
	END
	for how in cleanup abort; do
		run timeout 300 packer build -color=false -on-error=$how t.json
		echo "$output"
		[ "$status" = 1 ]
		[[ $output == *"Timeout waiting for SSH."* ]]
		[ $how = abort ] || nothing_left
	done
	VBoxManage list runningvms | grep -q '^"closed" '
	lodge wait closed --port 22 --timeout 60 # it is the password that was wrong
	VBoxManage controlvm closed poweroff
	VBoxManage unregistervm closed --delete
	# So does a provisioner that fails.
	cat >t.json <<-END
		{"builders": [{"type": "virtualbox-ovf", "source_path": "$FILES/box/box.ovf", "vm_name": "failing", $login, $bare, $common}],
		 "provisioners": [{"type": "shell", "inline": ["exit 7"]}]}
	END
	run timeout 300 packer build -color=false -force -on-error=cleanup t.json
	[ "$status" = 1 ]
	[[ $output == *"Script exited with non-zero exit status: 7"* ]]
	nothing_left
	[ ! -e out ]
}

# Ctrl-C reaches Packer and whatever it is just calling.
@test "a build that Ctrl-C stops at any moment ends soon and leaves nothing, so that the next one goes" {
	cat >t.json <<-END
		{"builders": [{"type": "virtualbox-ovf", "source_path": "$FILES/box/box.ovf", "vm_name": "stopped", $login, $bare, $common,
		  "boot_wait": "1s", "format": "ova"}],
		 "provisioners": [{"type": "shell", "inline": ["sleep 2"]}]}
	END
	for at in '"import"' '"modifyvm".*"packercomm' '"startvm"' 'Waiting 1s for boot' 'Waiting for SSH' 'Provisioning with' \
		'Gracefully halting' '"export"'; do
		"$ROOT/test/long/interrupt" "$PACKER_LOG_PATH" "$at" 0.02 packer build -color=false t.json >said 2>&1 || {
			echo "at $at:"
			cat said
			false
		}
		nothing_left
		[ ! -e out ]
	done
	build t.json
	[ -s out/stopped.ova ]
}

@test "virtualbox-ovf provisions Debian by ssh, and the box it makes comes up in Vagrant with what was provisioned" {
	[[ -f $LODGE_OUT/debian.box ]] || (cd "$ROOT" && tools/make-box "$LODGE_OUT/debian.box")
	mkdir box
	tar -C box -xzf "$LODGE_OUT/debian.box"
	cat >t.json <<-END
		{"builders": [{"type": "virtualbox-ovf", "source_path": "box/box.ovf", "vm_name": "made by ssh", $common,
		  "guest_additions_mode": "attach", "ssh_username": "vagrant", "ssh_timeout": "5m",
		  "ssh_private_key_file": "$VAGRANT_HOME/insecure_private_key", "shutdown_command": "sudo shutdown -h now"}],
		 "provisioners": [{"type": "shell", "inline": ["echo by packer | sudo tee /etc/made",
		   "sudo modprobe isofs; sudo mount -o ro /dev/sr0 /mnt; ls /mnt; sudo umount /mnt"]}],
		 "post-processors": [{"type": "vagrant", "output": "made.box", "vagrantfile_template": "box/Vagrantfile"}]}
	END
	build t.json
	[[ $output == *VBoxLinuxAdditions.run* ]]
	nothing_left
	vagrant box add --name made made.box
	mkdir project
	cd project
	printf 'Vagrant.configure("2") { |c| c.vm.box = "made"; c.vm.synced_folder ".", "/vagrant", disabled: true }\n' >Vagrantfile
	timeout 300 vagrant up
	timeout 60 vagrant ssh -c "cat /etc/made" | grep -q "by packer"
	timeout 120 vagrant destroy -f
}
