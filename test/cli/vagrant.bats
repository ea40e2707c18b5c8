#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# Debian's own Vagrant with a guest that is up in seconds: the whole of a machine's life. test/guest/vagrant.bats has the rest.
#
# Two Vagrants at once would want the same ports of the host.
# Runs beside the others.

load common

@test "vagrant up, status, ssh, port, suspend, resume, halt and destroy, with nothing of Vagrant's changed" {
	needs_machines
	command -v vagrant >/dev/null || skip "vagrant is not installed"
	[ -x /usr/sbin/dropbear ] || skip "dropbear-bin is not installed"
	unset LODGE_ENGINE # the one that this host gets
	export VAGRANT_HOME=$HOME/vagrant VAGRANT_CHECKPOINT_DISABLE=1 CHECKPOINT_DISABLE=1 VAGRANT_NO_COLOR=1
	here=$(realpath "$BATS_TEST_DIRNAME/../..")
	LODGE_BIN=$BIN "$here/tools/make-small-box" "$HOME/small.box" "${LODGE_OUT:-$here/out}/cache"
	vagrant box add --name lodge/small "$HOME/small.box"
	mkdir -p project
	cd project
	cat >Vagrantfile <<-'END'
		Vagrant.configure("2") do |config|
		  config.vm.box = "lodge/small"
		  config.vm.network "forwarded_port", guest: 80, host: 18080, auto_correct: true
		  config.vm.provision "shell", inline: "echo provisioned >/tmp/said"
		end
	END
	timeout 240 vagrant up
	uuid=$(cat .vagrant/machines/default/virtualbox/id)
	[ "$(mr "$uuid" VMState)" = running ]
	run timeout 60 vagrant ssh -c "cat /tmp/said; exit 3"
	[ "$status" = 3 ]
	[[ $output == *provisioned* ]]
	curl -fs --max-time 30 "http://127.0.0.1:$(vagrant port --guest 80)/" | grep -q 'Hello from a Lodge guest'
	timeout 120 vagrant suspend
	[ "$(mr "$uuid" VMState)" = saved ]
	timeout 120 vagrant resume
	timeout 60 vagrant ssh -c "cat /tmp/said" | grep -q provisioned
	timeout 120 vagrant halt
	[ "$(mr "$uuid" VMState)" = poweroff ]
	timeout 120 vagrant destroy -f
	vbm list vms
	says ""
	[ -z "$(find "$HOME/VirtualBox VMs" -type f)" ]
}
