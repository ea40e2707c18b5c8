#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# Debian's own Packer, not a line changed: a machine made from an ISO by typing, one made from a box by ssh, and what comes
# out goes back into Vagrant.
load ../guest/common

setup() {
	export PATH=$LODGE_BIN:$PATH:/sbin:/usr/sbin LODGE_ENGINE=${LODGE_TEST_ENGINE:-auto}
	command -v packer >/dev/null || skip "packer is not installed: apt-get install packer"
	export HOME=$BATS_TEST_TMPDIR/home LODGE_HOME=$BATS_TEST_TMPDIR/lodge CHECKPOINT_DISABLE=1
	export VAGRANT_HOME=$HOME/vagrant VAGRANT_CHECKPOINT_DISABLE=1 VAGRANT_NO_COLOR=1
	ROOT=$PWD
	mkdir -p "$HOME"
	cd "$HOME"
}

teardown() {
	cd /
	VBoxManage list runningvms 2>/dev/null | sed 's/^"\(.*\)" {.*/\1/' | while read -r name; do
		VBoxManage controlvm "$name" poweroff >/dev/null 2>&1 || true
	done
}

build() { # TEMPLATE
	run timeout 600 packer build -color=false "$1"
	echo "$output"
	[ "$status" = 0 ]
}

@test "virtualbox-iso types its boot command and exports what it made" {
	"$ROOT/tools/make-iso" boot.iso "$LODGE_OUT/cache"
	cat >t.json <<-END
		{"builders": [{"type": "virtualbox-iso", "guest_os_type": "Linux26_64", "vm_name": "made by typing",
		  "iso_url": "boot.iso", "iso_checksum": "sha256:$(sha256sum boot.iso | cut -d' ' -f1)",
		  "communicator": "none", "virtualbox_version_file": "", "guest_additions_mode": "disable",
		  "headless": true, "disk_size": 64, "hard_drive_interface": "sata", "memory": 256, "cpus": 1,
		  "boot_wait": "20s", "disable_shutdown": true, "shutdown_timeout": "3m", "format": "ova",
		  "boot_command": ["echo typed-by-packer >/dev/ttyS0<enter><wait2>poweroff -f<enter>"],
		  "vboxmanage": [["modifyvm", "{{.Name}}", "--uart1", "0x3F8", "4", "--uartmode1", "file", "$HOME/serial"]],
		  "output_directory": "out"}]}
	END
	build t.json
	grep -qa typed-by-packer serial
	[ -s "out/made by typing.ova" ]
	[ -z "$(VBoxManage list vms)" ]
	VBoxManage import -n "out/made by typing.ova"
}

@test "virtualbox-ovf provisions a box by ssh, and the box it makes comes up in Vagrant with what was provisioned" {
	command -v vagrant >/dev/null || skip "vagrant is not installed"
	[[ -f $LODGE_OUT/debian.box ]] || (cd "$ROOT" && tools/make-box "$LODGE_OUT/debian.box")
	mkdir box
	tar -C box -xzf "$LODGE_OUT/debian.box"
	vagrant version >/dev/null # puts the well-known key into VAGRANT_HOME
	cat >t.json <<-END
		{"builders": [{"type": "virtualbox-ovf", "source_path": "box/box.ovf", "vm_name": "made by ssh", "headless": true,
		  "guest_additions_mode": "disable", "virtualbox_version_file": "", "ssh_username": "vagrant",
		  "ssh_private_key_file": "$VAGRANT_HOME/insecure_private_key", "ssh_timeout": "5m",
		  "shutdown_command": "sudo shutdown -h now", "output_directory": "out"}],
		 "provisioners": [{"type": "shell", "inline": ["echo by packer | sudo tee /etc/made"]}],
		 "post-processors": [{"type": "vagrant", "output": "made.box", "vagrantfile_template": "box/Vagrantfile"}]}
	END
	build t.json
	vagrant box add --name made made.box
	mkdir project
	cd project
	printf 'Vagrant.configure("2") { |c| c.vm.box = "made"; c.vm.synced_folder ".", "/vagrant", disabled: true }\n' >Vagrantfile
	timeout 300 vagrant up
	timeout 60 vagrant ssh -c "cat /etc/made" | grep -q "by packer"
	timeout 120 vagrant destroy -f
}
