#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# Boot from the network: iPXE out of the card's ROM, TFTP of the adapter's NAT, pxelinux, the kernel and the installer of
# Debian 12 from the package debian-installer-12-netboot-amd64, as they are.

setup_file() {
	export PATH=$LODGE_BIN:$PATH HOME=$BATS_FILE_TMPDIR/home LODGE_HOME=$BATS_FILE_TMPDIR/lodge
	mkdir -p "$HOME"
	images=/usr/lib/debian-installer/images/12/amd64/text
	[[ -d $images ]] || skip "needs the package debian-installer-12-netboot-amd64"
	export TFTP=$BATS_FILE_TMPDIR/tftp
	cp -rL "$images" "$TFTP"
	# The same kernel and installer, on the serial line instead of a menu on the screen.
	printf '%s\n' 'default install' 'prompt 0' 'label install' 'kernel debian-installer/amd64/linux' \
		'append initrd=debian-installer/amd64/initrd.gz console=ttyS0 --- quiet' >"$TFTP/pxelinux.cfg/default"
}

installer_from() { # MODEL
	[[ -n ${TFTP:-} ]] || skip "needs the package debian-installer-12-netboot-amd64"
	local log=$BATS_TEST_TMPDIR/serial i
	VBoxManage createvm --name "$1" --ostype Debian_64 --register
	VBoxManage modifyvm "$1" --memory 1024 --boot1 net --nic1 nat --nictype1 "$1" --nattftpprefix1 "$TFTP" \
		--nattftpfile1 pxelinux.0 --uart1 0x3f8 4 --uartmode1 file "$log"
	VBoxManage startvm "$1"
	for ((i = 0; i < 240; i++)); do
		! grep -aqE 'Select a language|Choose language|Low memory' "$log" 2>/dev/null || break
		sleep 1
	done
	VBoxManage controlvm "$1" poweroff
	grep -aqE 'Select a language|Choose language|Low memory' "$log" || { tail -c 2000 "$log"; return 1; }
}

@test "an 82540EM boots the Debian installer from the network" {
	installer_from 82540EM
}

@test "an Am79C973 boots the Debian installer from the network" {
	installer_from Am79C973
}

@test "a virtio adapter boots the Debian installer from the network" {
	installer_from virtio
}
