#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# Debian's own Vagrant, not a line changed, drives our VBoxManage with a box that tools/make-box made. The tests of one
# project follow each other: a machine that is up is what the next test begins with.
#
# Two Vagrants at once would want the same ports of the host.
# Runs beside the others.

load common

setup_file() {
	export PATH=$LODGE_BIN:$PATH:/sbin:/usr/sbin LODGE_ENGINE=${LODGE_TEST_ENGINE:-auto}
	command -v vagrant >/dev/null || skip "vagrant is not installed: apt-get install vagrant rsync"
	BOX=$LODGE_OUT/debian.box
	export BOX
	[[ -f $BOX ]] || tools/make-box "$BOX"
	export ROOT=$PWD HOME=$BATS_FILE_TMPDIR/home LODGE_HOME=$BATS_FILE_TMPDIR/lodge
	export VAGRANT_HOME=$BATS_FILE_TMPDIR/vagrant VAGRANT_CHECKPOINT_DISABLE=1 CHECKPOINT_DISABLE=1 VAGRANT_NO_COLOR=1
	mkdir -p "$HOME"
	vagrant box add --name lodge/debian "$BOX"
}

teardown_file() {
	local name
	cd /
	VBoxManage list runningvms | sed 's/^"\(.*\)" {.*/\1/' | while read -r name; do
		VBoxManage controlvm "$name" poweroff >/dev/null 2>&1 || true
	done
	rm -rf "$HOME/VirtualBox VMs" "$VAGRANT_HOME"
}

project() { # NAME: a directory of its own, and into it; a Vagrantfile on stdin the first time
	mkdir -p "$BATS_FILE_TMPDIR/$1"
	cd "$BATS_FILE_TMPDIR/$1" || return 1
	[ -f Vagrantfile ] || cat >Vagrantfile
}

v() { # ARGUMENTS...: vagrant, in at most five minutes; what it said is shown when the test fails
	run timeout 300 vagrant "$@"
	echo "$ vagrant $*"
	echo "$output"
	[ "$status" = 0 ]
}

guest() { # COMMAND: its output in the guest
	timeout 60 vagrant ssh -c "$1" -- -q 2>/dev/null | tr -d '\r'
}

state() {
	vagrant status --machine-readable | sed -n 's/^[0-9]*,[^,]*,state,//p' | tr '\n' ' '
}

@test "up imports the box, boots, has its networks and provisioners, and is ready within a minute" {
	project full <<-'END'
		Vagrant.configure("2") do |config|
		  config.vm.box = "lodge/debian"
		  config.vm.synced_folder ".", "/vagrant", type: "rsync"
		  config.vm.network "private_network", type: "dhcp"
		  config.vm.network "private_network", ip: "192.168.60.10"
		  config.vm.network "forwarded_port", guest: 8000, host: 18000, auto_correct: true
		  config.vm.provision "shell", inline: "echo provisioned by $(id -un) >>/root/said"
		  config.vm.provision "file", source: "Vagrantfile", destination: "/tmp/copied"
		  config.vm.provider "virtualbox" do |vb|
		    vb.name = "full vm"
		    vb.memory = 512
		    vb.customize ["modifyvm", :id, "--cpuexecutioncap", "95"]
		  end
		end
	END
	echo synced >file
	start=$(date +%s%N)
	v up
	took=$((($(date +%s%N) - start) / 1000000))
	echo "# vagrant up took $took ms" >&3
	[[ $output == *"Machine booted and ready!"* ]]
	[ "$took" -lt "${LODGE_VAGRANT_UP_MS:-90000}" ]
	[ "$(state)" = "running " ]
	VBoxManage list runningvms | grep -q '^"full vm" {'
	guest "cat /vagrant/file" | grep -x synced
	guest "sudo cat /root/said" | grep -x "provisioned by root"
	guest "cat /tmp/copied" | grep -q 'auto_correct: true'
	guest "ip -4 -o addr show dev eth1" | grep -q 'inet 192\.168\.5[6-9]\.'
	guest "ip -4 -o addr show dev eth2" | grep -q 'inet 192\.168\.60\.10/24'
}

@test "a second up finds it running; port, ssh-config and provision answer" {
	project full </dev/null
	v up
	[[ $output == *"already provisioned"* || $output == *"already running"* ]]
	v port
	grep -qE '^ *22 \(guest\) => [0-9]+ \(host\)$' <<<"$output"
	v ssh-config
	grep -q 'HostName 127.0.0.1' <<<"$output"
	v provision --provision-with shell
	[ "$(guest "sudo cat /root/said" | wc -l)" = 2 ]
	run timeout 60 vagrant ssh -c "exit 7"
	[ "$status" = 7 ]
}

@test "a forwarded port leads to a server in the guest" {
	project full </dev/null
	# What ncat and python are to others: a shell and a socket of systemd's.
	guest "printf '[Socket]\nListenStream=8000\nAccept=yes\n[Install]\n' | sudo tee /etc/systemd/system/hi.socket >/dev/null
	printf '[Service]\nExecStart=/bin/echo hi from the guest\nStandardOutput=socket\n' | sudo tee /etc/systemd/system/hi@.service >/dev/null
	sudo systemctl start hi.socket"
	port=$(vagrant port --guest 8000)
	exec 9<>"/dev/tcp/127.0.0.1/$port"
	read -r -t 30 line <&9
	[ "$line" = "hi from the guest" ]
}

@test "snapshots: save, list, restore, push and pop bring the machine back as it was, running" {
	project full </dev/null
	v snapshot save one
	guest "touch /tmp/after-one && sync"
	v snapshot list
	grep -qx one <<<"$output"
	v snapshot restore one --no-provision
	[ "$(guest "ls /tmp/after-one 2>/dev/null || echo gone")" = gone ]
	v snapshot push
	guest "touch /tmp/after-push"
	v snapshot pop --no-provision
	[ "$(guest "ls /tmp/after-push 2>/dev/null || echo gone")" = gone ]
	v snapshot delete one
	v snapshot list
	[[ $output == *"No snapshots have been taken yet"* ]]
}

@test "suspend and resume keep what runs" {
	project full </dev/null
	guest "nohup sleep 3000 >/dev/null 2>&1 & echo started"
	v suspend
	[ "$(state)" = "saved " ]
	v resume
	[ "$(state)" = "running " ]
	guest "pgrep -x sleep" | grep -q '[0-9]'
}

@test "reload takes what is new in the Vagrantfile, halt ends cleanly, package makes a box that comes up" {
	project full </dev/null
	sed -i 's/vb.memory = 512/vb.memory = 640/' Vagrantfile
	v reload --no-provision
	guest "awk '/^MemTotal/ { print int(\$2 / 1024) }' /proc/meminfo" | awk '{ exit !($1 > 550) }'
	v halt
	[ "$(state)" = "poweroff " ]
	v package --output made.box
	tar tzf made.box | grep -q 'box.ovf$'
	v box add --name lodge/made made.box
	v destroy -f
	[ "$(state)" = "not_created " ]
	[ -z "$(VBoxManage list vms)" ]
	project made <<-'END'
		Vagrant.configure("2") do |config|
		  config.vm.box = "lodge/made"
		  config.vm.synced_folder ".", "/vagrant", disabled: true
		end
	END
	v up
	guest "sudo cat /root/said" | grep -x "provisioned by root"
	v destroy -f
}

@test "two linked clones share the box's disk, and one that is halted by force starts again" {
	project linked <<-'END'
		Vagrant.configure("2") do |config|
		  config.vm.box = "lodge/debian"
		  config.vm.synced_folder ".", "/vagrant", disabled: true
		  config.ssh.insert_key = false
		  config.vm.provider("virtualbox") { |vb| vb.linked_clone = true; vb.memory = 256 }
		  config.vm.define("a") { |m| m.vm.hostname = "host-a"; m.vm.network "private_network", ip: "192.168.61.11", virtualbox__intnet: "lab" }
		  config.vm.define("b") { |m| m.vm.hostname = "host-b"; m.vm.network "private_network", ip: "192.168.61.12", virtualbox__intnet: "lab" }
		end
	END
	v up
	[ "$(state)" = "running running " ]
	timeout 60 vagrant ssh a -c "hostname; ping -c 2 -W 5 192.168.61.12" | tee said
	grep -qx 'host-a' <(tr -d '\r' <said)
	grep -q ' 0% packet loss' said
	VBoxManage list hdds | tee said
	[ "$(grep -cE '^Parent UUID: +[0-9a-f-]{36}$' said)" -ge 2 ]
	v halt -f b
	[ "$(state)" = "running poweroff " ]
	v up b
	v destroy -f
	[ "$(state)" = "not_created not_created " ]
}

@test "the experimental disks: the first grows, another comes and goes" {
	export VAGRANT_EXPERIMENTAL=disks
	project disks <<-'END'
		Vagrant.configure("2") do |config|
		  config.vm.box = "lodge/debian"
		  config.vm.synced_folder ".", "/vagrant", disabled: true
		  config.vm.disk :disk, size: "6GB", primary: true
		  config.vm.disk :disk, size: "1GB", name: "extra"
		end
	END
	v up
	guest "cat /sys/block/sd?/size" | sort -n >sizes
	[ "$(tr '\n' ' ' <sizes)" = "2097152 12582912 " ]
	sed -i '/extra/d' Vagrantfile
	v reload
	[ "$(guest "cat /sys/block/sd?/size" | wc -l)" = 1 ]
	v destroy -f
}

@test "a machine whose guest does not answer says so, and one that was removed behind Vagrant's back is not created" {
	project gone <<-'END'
		Vagrant.configure("2") do |config|
		  config.vm.box = "lodge/debian"
		  config.vm.boot_timeout = 5
		  config.vm.synced_folder ".", "/vagrant", disabled: true
		  config.vm.provider("virtualbox") { |vb| vb.customize ["modifyvm", :id, "--boot1", "none", "--boot2", "none"] }
		end
	END
	run timeout 120 vagrant up
	[ "$status" != 0 ]
	[[ $output == *"Timed out while waiting for the machine to boot"* ]]
	id=$(cat .vagrant/machines/default/virtualbox/id)
	VBoxManage controlvm "$id" poweroff
	VBoxManage unregistervm "$id" --delete
	[ "$(state)" = "not_created " ]
}

@test "the synced folder is vboxsf in the guest, and both sides see what the other writes; of two vagrants at once one is told so" {
	project shared <<-'END'
		Vagrant.configure("2") do |config|
		  config.vm.box = "lodge/debian"
		  config.vm.boot_timeout = 600
		end
	END
	v up
	[ "$(state)" = "running " ]
	[ "$(guest "findmnt -n -o FSTYPE,SOURCE /vagrant" | xargs)" = "vboxsf vagrant" ]
	echo "from the host" >here
	[ "$(guest "cat /vagrant/here")" = "from the host" ]
	guest "cd /vagrant && echo 'from the guest' >there && sed -i s/host/guest/ here && mkdir -p d && mv there d/there"
	[ "$(cat here)" = "from the guest" ]
	[ "$(cat d/there)" = "from the guest" ]
	echo longer, from the host, again >here
	rm d/there
	[ "$(guest "cat /vagrant/here; ls -A /vagrant/d | wc -l; stat -c %U /vagrant/here" | xargs)" = "longer, from the host, again 0 vagrant" ]
	# Two at once: one has the machine, the other says so, and neither stays.
	vagrant reload >one 2>&1 3>&- &
	sleep 3
	run timeout 300 vagrant halt
	[ "$status" != 0 ] && grep -q "another process is already executing" <<<"$output"
	wait $!
	[ "$(state)" = "running " ]
	v destroy -f
	[ -z "$(VBoxManage list vms | grep shared)" ]
}

@test "the course's Vagrantfiles run" {
	mkdir -p "$BATS_FILE_TMPDIR/course"
	cp -r "$ROOT/test/course/vagrant/." "$BATS_FILE_TMPDIR/course"
	cd "$BATS_FILE_TMPDIR/course/first"
	v up
	[ "$(guest nproc)" = 2 ]
	guest "ls /vagrant" | grep -q Vagrantfile
	v halt
	v destroy -f
	# The exercise wants a box with apk: the Debian box, with a stand-in for that program.
	mkdir ../box
	tar -C ../box -xzf "$BOX"
	cat >>../box/Vagrantfile <<-'END'
		Vagrant.configure("2") do |config|
		  config.vm.provision "shell", inline: "printf '#!/bin/sh\necho apk \"$@\" >>/root/apk\n' >/usr/local/bin/apk; chmod 755 /usr/local/bin/apk"
		end
	END
	tar -C ../box -czf ../alpine.box metadata.json Vagrantfile box.ovf box-disk001.vmdk
	v box add --name lodge/alpine ../alpine.box
	cd ../exercise4
	v up
	[ "$(guest "sudo cat /root/apk | wc -l")" = 2 ]
	v destroy -f
}
