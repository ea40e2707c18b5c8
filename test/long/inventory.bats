#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# Ansible's inventory of VirtualBox machines (Debian's ansible 7.7, community.general) and python3-vagrant ask our programs,
# not a line of theirs changed.
# shellcheck disable=SC2154 # status, output and stderr are set by run
load ../cli/common

teardown_file() { rm -rf "${BATS_FILE_TMPDIR:?}/vagrant"; }

inventory() { # ansible-inventory's answer for FILE, through jq FILTER
	ANSIBLE_LOCALHOST_WARNING=0 timeout 120 ansible-inventory -i "$1" --list 2>err | jq -r "$2"
}

@test "Ansible finds the machines, their groups, what they have, and the addresses that they tell" {
	needs_machines
	command -v ansible-inventory >/dev/null
	make_vm web-1
	make_vm "old db"
	VBoxManage modifyvm web-1 --memory 16 --groups /lab/web --description "with: a colon"
	VBoxManage modifyvm "old db" --memory 48 --cpus 2
	VBoxManage createmedium disk --filename d.vdi --size 16 >/dev/null 2>&1
	VBoxManage storagectl web-1 --name SATA --add sata
	VBoxManage storageattach web-1 --storagectl SATA --port 0 --device 0 --type hdd --medium d.vdi
	VBoxManage modifyvm web-1 --natpf1 ssh,tcp,127.0.0.1,2299,,22
	VBoxManage startvm web-1 --type headless >/dev/null
	VBoxManage guestproperty set web-1 /VirtualBox/GuestInfo/Net/0/V4/IP 192.168.56.77
	printf 'plugin: community.general.virtualbox\nquery:\n  seen: /VirtualBox/GuestInfo/Net/0/V4/IP\n' >all.vbox.yml
	printf 'plugin: community.general.virtualbox\nrunning_only: yes\n' >running.vbox.yml
	inventory all.vbox.yml . >all.json
	[ -s all.json ] || { cat err; false; }
	host() { jq -r "._meta.hostvars[\"$1\"][\"$2\"]" all.json; }
	[ "$(jq -r '._meta.hostvars | keys[]' all.json | sort | tr '\n' ,)" = "old db,web-1," ]
	[ "$(host web-1 ansible_host)" = 192.168.56.77 ]
	[ "$(host web-1 seen)" = 192.168.56.77 ]
	[ "$(host web-1 vbox_Memory_size)" = 16MB ]
	[ "$(host 'old db' vbox_Number_of_CPUs)" = 2 ]
	[[ $(host web-1 vbox_State) == "running (since "* ]]
	[[ $(host 'old db' vbox_State) == "powered off (since "* ]]
	[ "$(host 'old db' ansible_host)" = null ]
	[ "$(jq -r '.lab.hosts[], .web.hosts[]' all.json | tr '\n' ,)" = "web-1,web-1," ]
	[ "$(inventory running.vbox.yml '._meta.hostvars | keys[]')" = web-1 ]
}

@test "python3-vagrant makes a machine, asks it, saves, resumes and removes it" {
	command -v vagrant >/dev/null
	box=$LODGE_OUT/debian.box
	[ -f "$box" ] || (cd "$BATS_TEST_DIRNAME/../.." && tools/make-box "$box")
	export VAGRANT_HOME=$BATS_FILE_TMPDIR/vagrant VAGRANT_CHECKPOINT_DISABLE=1 VAGRANT_NO_COLOR=1 LODGE_ENGINE=auto
	vagrant box add --name lodge/debian "$box" >/dev/null
	mkdir project
	cd project
	cat >Vagrantfile <<-'END'
		Vagrant.configure("2") do |config|
		  config.vm.box = "lodge/debian"
		  config.vm.boot_timeout = 600
		  config.vm.synced_folder ".", "/vagrant", disabled: true
		end
	END
	timeout 900 /usr/bin/python3 - <<-'END'
		import subprocess, vagrant
		v = vagrant.Vagrant(quiet_stdout=False, quiet_stderr=False)
		assert [s.state for s in v.status()] == [v.NOT_CREATED], v.status()
		assert [b.name for b in v.box_list()] == ["lodge/debian"], v.box_list()
		v.up()
		s, = v.status()
		assert (s.state, s.provider) == (v.RUNNING, "virtualbox"), s
		assert v.hostname() == "127.0.0.1" and v.user() == "vagrant" and int(v.port()) > 1023
		assert v.ssh(command="echo $((6 * 7))").strip() == "42"
		v.snapshot_save("one")
		assert v.snapshot_list()[-1:] == ["one"], v.snapshot_list()  # the lines, Vagrant's heading among them
		v.snapshot_delete("one")
		v.suspend()
		assert v.status()[0].state == v.SAVED, v.status()
		v.up()
		assert v.status()[0].state == v.RUNNING
		v.halt()
		assert v.status()[0].state == v.POWEROFF
		v.destroy()
		assert v.status()[0].state == v.NOT_CREATED
	END
	[ -z "$(VBoxManage list vms)" ]
}
