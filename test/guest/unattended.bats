#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# The life of an unattended installation: the answer medium starts the installer's kernel with the answers in its initial
# RAM disk, the "installer" writes the disk and restarts, the medium's loader hands over to the disk, and afterwards
# nothing of it is left. The installer is a stock kernel with busybox on an image laid out as Debian's.

load common

setup_file() {
	setup_file_common
	export LODGE_ENGINE=${LODGE_TEST_ENGINE:-auto}
}

setup() {
	console=$BATS_TEST_TMPDIR/console
	export HOME=$BATS_TEST_TMPDIR LODGE_HOME=$BATS_TEST_TMPDIR/lodge
	cd "$HOME"
}

teardown() {
	VBoxManage controlvm auto poweroff >/dev/null 2>&1 || true
}

# What the installer does: shows that it has the answers, writes the disk of its medium to the machine's, restarts. The
# first time it comes only to where the partition table is written, with the code that libparted gives it.
installer='
[ "$(head -c 4 /dev/sda | od -An -tx1)" = " fa b8 00 10" ] || {
	{ printf "\\372\\270\\000\\020"; head -c 506 /dev/zero; printf "\\125\\252"; } >/dev/sda; sync; echo INTERRUPTED
	reboot -f
}
grep -q "^d-i passwd/username string me" /preseed.cfg && echo ANSWERS-SEEN
[ -s /vboxpostinstall.sh ] && echo SCRIPT-SEEN
sed -n "s/^d-i passwd.user-password-crypted password .6.*/CRYPTED-SEEN/p" /preseed.cfg
mkdir -p /m; for d in /dev/sr*; do mount -o ro $d /m && [ -e /m/disk.img ] && break; umount /m; done 2>/dev/null
dd if=/m/disk.img of=/dev/sda bs=1M 2>/dev/null; sync; echo WRITTEN; reboot -f'

second_boot() {
	sed "1,/WRITTEN/d" "$console" | grep -q LODGE-GUEST-READY
}

debian_iso() {
	mkdir -p cd/.disk cd/install.amd
	echo 'Debian GNU/Linux 12.5.0 "Bookworm" - Official amd64 NETINST 20240210-11:27' >cd/.disk/info
	ln "$ISO.vmlinuz" cd/install.amd/vmlinuz 2>/dev/null || cp "$ISO.vmlinuz" cd/install.amd/vmlinuz
	cp "$ISO.initrd" cd/install.amd/initrd.gz
	cp "$ISO" cd/disk.img
	xorriso -as mkisofs -quiet -V DEBIAN -R -o debian.iso cd 2>/dev/null
}

@test "an unattended installation answers, restarts from the disk and leaves nothing behind" {
	debian_iso
	VBoxManage createvm --name auto --ostype Debian12_64 --register --default >/dev/null
	VBoxManage createmedium disk --filename auto.vdi --size 32 2>/dev/null
	VBoxManage storageattach auto --storagectl SATA --port 0 --device 0 --type hdd --medium auto.vdi
	VBoxManage modifyvm auto --memory 512 --nic1 none --uart1 0x3f8 4 --uartmode1 file "$console"
	VBoxManage unattended install auto --iso debian.iso --user me --password topsecret --start-vm headless \
		--extra-install-kernel-parameters "console=ttyS0 $(script <<<"$installer")"
	aux=$(ls "VirtualBox VMs/auto/"*aux.iso)
	wait_for 160 grep -q WRITTEN "$console" || { show "$console"; false; }
	grep -q INTERRUPTED "$console" # and began again
	for word in ANSWERS SCRIPT CRYPTED; do
		grep -q "$word-SEEN" "$console" || { show "$console"; false; }
	done
	wait_for 60 second_boot || { show "$console"; false; }
	[ -e "$aux" ]
	VBoxManage controlvm auto poweroff 2>/dev/null
	VBoxManage list vms >/dev/null
	[ ! -e "$aux" ]
	VBoxManage showvminfo auto --machinereadable | grep -qxF '"IDE-0-0"="emptydrive"'
	! grep -rqF topsecret lodge "VirtualBox VMs"
}
