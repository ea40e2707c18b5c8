#!/usr/bin/env bats
# A real Debian, made by tools/make-debian: boots to its login prompt with networking, is worked with, and leaves a clean
# file system when it is switched off.

load ../guest/common

setup_file() {
	export PATH=$LODGE_BIN:$PATH:/sbin:/usr/sbin LODGE_ENGINE=${LODGE_TEST_ENGINE:-auto}
	DEBIAN=$LODGE_OUT/debian.img
	export DEBIAN
	[[ -f $DEBIAN && $DEBIAN -nt tools/make-debian ]] || tools/make-debian "$DEBIAN"
}

setup() {
	disk=$BATS_TEST_TMPDIR/disk
	line=$BATS_TEST_TMPDIR/line # the serial port's socket
	port=$(free_port)
	export HOME=$BATS_TEST_TMPDIR LODGE_HOME=$BATS_TEST_TMPDIR/lodge
}

teardown() {
	[[ -z ${machine:-} ]] || kill "$machine" 2>/dev/null || true
	VBoxManage controlvm deb poweroff >/dev/null 2>&1 || true
	rm -f "$disk"
}

in_guest() { # COMMAND, through ssh
	ssh -i "$DEBIAN.key" -p "$port" -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR \
		-o ConnectTimeout=60 root@127.0.0.1 "$@"
}

console() { # COMMAND...
	test/long/console "$line" 300 root lodge "$@" | tee -a "$BATS_TEST_TMPDIR/said"
}

file_system_is_clean() { # IMAGE
	e2fsck -fn "$1?offset=1048576" 2>&1
	dumpe2fs -h "$1?offset=1048576" 2>/dev/null | grep -q '^Filesystem state: *clean$'
}

throw_away_machine() { # OPTION...
	cp --sparse=always "$DEBIAN" "$disk"
	timeout 900 lodge boot --memory 512 --cpus 2 --serial "unix-server:$line" --display none --timeout 880 "$@" 3>&- &
	machine=$!
}

# A megabyte there and back comes out the same, and a file written is on the disk when the machine is off.
work_through_ssh() {
	in_guest 'head -c 1000000 /dev/urandom >/root/blob; sha256sum </root/blob' >"$BATS_TEST_TMPDIR/there"
	in_guest 'cat /root/blob' | sha256sum >"$BATS_TEST_TMPDIR/here"
	cmp "$BATS_TEST_TMPDIR/there" "$BATS_TEST_TMPDIR/here"
}

blob_is_on() { # IMAGE
	debugfs -R 'cat /root/blob' "$1?offset=1048576" 2>/dev/null | sha256sum | cmp - "$BATS_TEST_TMPDIR/there"
}

@test "Debian on a raw AHCI disk with an e1000: login, apt-get update, ssh, power-off" {
	throw_away_machine --kernel "$DEBIAN.vmlinuz" --initrd "$DEBIAN.initrd" --append 'root=LABEL=lodge ro console=ttyS0' \
		--disk "$disk,bus=ahci" --nic "nat,hostfwd=tcp:127.0.0.1:$port-:22"
	console 'systemctl is-system-running --wait' 'lsblk /dev/sda1' 'readlink /sys/class/net/en*/device/driver' \
		'apt-get -q update 2>&1 | tee /dev/stderr | grep -q ^Fetched' 'test -s /var/lib/apt/lists/*bookworm_main*Packages*'
	grep -q '/e1000' "$BATS_TEST_TMPDIR/said"
	work_through_ssh
	in_guest 'systemctl poweroff' || true
	wait $machine # exit status 0: the guest switched itself off
	machine=
	file_system_is_clean "$disk"
	blob_is_on "$disk"
}

@test "Debian on a raw virtio disk with a virtio card boots through BIOS and GRUB" {
	throw_away_machine --disk "$disk,bus=virtio" --nic "nat,model=virtio,hostfwd=tcp:127.0.0.1:$port-:22"
	console 'systemctl is-system-running --wait' 'lsblk /dev/vda1' 'readlink /sys/class/net/en*/device/driver'
	grep -q '/virtio_net' "$BATS_TEST_TMPDIR/said"
	work_through_ssh
	in_guest 'systemctl poweroff' || true
	wait $machine
	machine=
	file_system_is_clean "$disk"
	blob_is_on "$disk"
}

@test "Debian on a VDI that qemu-img made, driven by VBoxManage, obeys the power button" {
	qemu-img convert -O vdi "$DEBIAN" "$disk.vdi"
	VBoxManage createvm --name deb --ostype Debian_64 --register
	VBoxManage modifyvm deb --memory 512 --cpus 2 --nic1 nat --nictype1 virtio --natpf1 "ssh,tcp,127.0.0.1,$port,,22" \
		--uart1 0x3f8 4 --uartmode1 server "$line" --boot1 disk
	VBoxManage storagectl deb --name SATA --add sata
	VBoxManage storageattach deb --storagectl SATA --port 0 --device 0 --type hdd --medium "$disk.vdi"
	VBoxManage startvm deb --type headless
	console 'systemctl is-system-running --wait' 'ls /dev/disk/by-id'
	grep -q 'ata-VBOX_HARDDISK_VB' "$BATS_TEST_TMPDIR/said"
	work_through_ssh
	VBoxManage controlvm deb acpipowerbutton
	wait_for 120 bash -c "VBoxManage showvminfo deb --machinereadable | grep -q '^VMState=\"poweroff\"'"
	qemu-img check "$disk.vdi"
	qemu-img convert -O raw "$disk.vdi" "$disk"
	rm "$disk.vdi"
	file_system_is_clean "$disk"
	blob_is_on "$disk"
}

@test "Debian runs from NVMe, virtio SCSI, LSI Logic and LSI SAS disks" {
	local bus disk_name
	for bus in nvme:nvme0n1 virtio-scsi:sda lsilogic:sda lsisas:sda; do
		disk_name=${bus#*:} bus=${bus%:*}
		throw_away_machine --kernel "$DEBIAN.vmlinuz" --initrd "$DEBIAN.initrd" \
			--append 'root=LABEL=lodge ro console=ttyS0' --disk "$disk,bus=$bus" --nic "nat,hostfwd=tcp:127.0.0.1:$port-:22"
		console 'systemctl is-system-running --wait' "findmnt -n -o SOURCE / | grep -q ^/dev/$disk_name"
		work_through_ssh
		in_guest 'systemctl poweroff' || true
		wait $machine
		machine=
		file_system_is_clean "$disk"
		blob_is_on "$disk"
	done
}
