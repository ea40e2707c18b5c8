#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# Unattended installation without a guest: what is found on an ISO image, and what is put on the answer medium.
# shellcheck disable=SC2154 # status, output and stderr are set by run

load common

# iso NAME: an image of the directory NAME, as NAME.iso
iso() {
	xorriso -as mkisofs -quiet -V "${2:-TEST}" -R -o "$1.iso" "$1" 2>/dev/null
}

put() { # FILE TEXT
	mkdir -p "$(dirname "$1")"
	printf '%s\n' "$2" >"$1"
}

# A file that looks like a kernel to a boot loader: protocol 2.15, loaded high, one setup sector.
kernel() {
	mkdir -p "$(dirname "$1")"
	python3 - "$1" <<-'PY'
	import struct, sys
	k = bytearray(8192)
	k[0x1f1] = 1
	k[0x202:0x206] = b"HdrS"
	struct.pack_into("<H", k, 0x206, 0x020f)
	k[0x211] = 1
	struct.pack_into("<I", k, 0x22c, 0x7fffffff)
	struct.pack_into("<I", k, 0x238, 2047)
	struct.pack_into("<QI", k, 0x258, 0x1000000, 0x2000000)
	open(sys.argv[1], "wb").write(k)
	PY
}

debian() {
	put deb/.disk/info 'Debian GNU/Linux 12.5.0 "Bookworm" - Official amd64 NETINST with firmware 20240210-11:27'
	kernel deb/install.amd/vmlinuz
	mkdir -p deb/pool
	: | gzip >deb/install.amd/initrd.gz
	iso deb
}

machine() {
	VBoxManage createvm --name m --ostype Debian12_64 --register --default
	VBoxManage createmedium disk --filename m.vdi --size 64
	VBoxManage storageattach m --storagectl SATA --port 0 --device 0 --type hdd --medium m.vdi
} >/dev/null 2>&1

@test "Debian's media say which Debian they are" {
	debian
	vbm unattended detect --iso deb.iso
	says "VBoxManage: info: Detected '$PWD/deb.iso' to be:
    OS TypeId    = Debian12_64
    OS Version   = 12.5.0 \"Bookworm\"
    OS Flavor    = Debian GNU/Linux
    OS Languages = en-US
    OS Hints     = 
    Unattended installation supported = yes"
	vbm unattended detect --iso=deb.iso --machine-readable
	has_line 'OSVersion="12.5.0 \"Bookworm\""'
	has_line 'IsInstallSupported="on"'
}

@test "Ubuntu, Alpine, Fedora and Red Hat's kinds are told apart" {
	put u/.disk/info 'Ubuntu-Server 22.04.3 LTS "Jammy Jellyfish" - Release amd64 (20230810)'
	kernel u/casper/vmlinuz
	put u/casper/initrd x
	put u/casper/install-sources.yaml x
	put o/.disk/info 'Ubuntu-Server 16.04.6 LTS "Xenial Xerus" - Release amd64 (20190226)'
	kernel o/install/vmlinuz
	put o/install/initrd.gz x
	put a/.alpine-release 'alpine-virt 3.18.4 230928'
	kernel a/boot/vmlinuz-virt
	put a/boot/initramfs-virt x
	put f/.treeinfo $'[general]\nfamily = Fedora\nversion = 38\narch = x86_64'
	kernel f/images/pxeboot/vmlinuz
	put f/images/pxeboot/initrd.img x
	put r/.treeinfo $'[general]\nfamily = AlmaLinux\nversion = 9.2\narch = x86_64'
	kernel r/images/pxeboot/vmlinuz
	put r/images/pxeboot/initrd.img x
	while read -r dir type; do
		iso "$dir"
		vbm unattended detect --iso "$dir.iso" --machine-readable
		has_line "OSTypeId=\"$type\""
		has_line 'IsInstallSupported="on"'
	done <<-END
	u Ubuntu22_LTS_64
	o Ubuntu16_LTS_64
	a Linux26_64
	f Fedora_64
	r RedHat9_64
	END
}

@test "what nobody knows is not supported, and what is no ISO is an error" {
	put x/readme x
	iso x
	vbm unattended detect --iso x.iso
	[[ $output == *"Unattended installation supported = no" ]]
	machine
	vbm unattended install m --iso x.iso
	fails_with 1 "Unattended installation is not supported for '$PWD/x.iso'"
	head -c 100000 /dev/urandom >y.iso
	vbm unattended detect --iso y.iso
	fails_with 1 "'$PWD/y.iso' is not an ISO image"
	vbm unattended detect --iso z.iso
	fails_with 1 "cannot be read"
	vbm unattended detect
	fails_with 2 "No ISO specified"
}

@test "a dry run tells the values and changes nothing" {
	debian
	machine
	before=$(VBoxManage showvminfo m --machinereadable)
	vbm unattended install m --iso deb.iso --user me --password=topsecret --locale de_DE --dry-run
	succeeds
	has_line "                           isoPath = $PWD/deb.iso"
	has_line "                              user = me"
	has_line "                           country = DE"
	has_line "                          hostname = m.myguest.virtualbox.org"
	[[ $output != *topsecret* ]]
	[ "$before" = "$(VBoxManage showvminfo m --machinereadable)" ]
	[ -z "$(ls "$HOME/VirtualBox VMs/m" | grep iso)" ]
}

@test "the answer medium has the answers, the crypted password only, and nobody else may read it" {
	debian
	machine
	printf 'topsecret\nmore\n' >pw
	vbm unattended install m --iso deb.iso --user me --password-file pw --full-user-name 'Me Myself' \
		--post-install-command 'echo "a b" >/root/x' --extra-install-kernel-parameters 'console=ttyS0'
	succeeds
	aux=$(VBoxManage showvminfo m --machinereadable | sed -n 's/^"IDE-0-0"="\(.*\)"$/\1/p')
	[[ $aux == "$HOME/VirtualBox VMs/m/Unattended-"*-aux.iso ]]
	[ "$(stat -c %a "$aux")" = 600 ]
	VBoxManage showvminfo m --machinereadable | grep -qxF "\"IDE-1-0\"=\"$PWD/deb.iso\""
	xorriso -osirrox on -indev "$aux" -extract /initrd.img initrd -extract /setup.bin setup 2>/dev/null
	grep -aq 'preseed/file=/preseed.cfg .*console=ttyS0' setup
	[ "$(dd if=setup bs=1 skip=$((0x202)) count=4 2>/dev/null)" = HdrS ]
	python3 -c 'import sys; d = open("initrd", "rb").read(); open("cpio", "wb").write(d[d.index(b"070701"):])'
	mkdir out
	(cd out && cpio -i --quiet <../cpio)
	grep -qx 'd-i passwd/username string me' out/preseed.cfg
	grep -qx 'd-i passwd/user-fullname string Me Myself' out/preseed.cfg
	grep -q '^d-i passwd/user-password-crypted password \$6\$' out/preseed.cfg
	grep -qx 'echo "a b" >/root/x' out/vboxpostinstall.sh
	! grep -rqF topsecret "$aux" out "$HOME/VirtualBox VMs/m" "$LODGE_HOME"
	! grep -q '@@VBOX' out/*
	hash=$(sed -n 's/^d-i passwd\/user-password-crypted password //p' out/preseed.cfg)
	[ "$(openssl passwd -6 -salt "$(cut -d'$' -f3 <<<"$hash")" topsecret)" = "$hash" ]
}

@test "autoinstall's answers are YAML on a disc called CIDATA" {
	put u/.disk/info 'Ubuntu-Server 22.04.3 LTS "Jammy Jellyfish" - Release amd64 (20230810)'
	kernel u/casper/vmlinuz
	put u/casper/initrd x
	iso u
	machine
	vbm unattended install m --iso u.iso --user me --full-user-name "O'Neil #1"
	succeeds
	aux=$(ls "$HOME/VirtualBox VMs/m/"*aux.iso)
	[ "$(dd if="$aux" bs=1 skip=$((16 * 2048 + 40)) count=6 2>/dev/null)" = CIDATA ]
	xorriso -osirrox on -indev "$aux" -extract /user-data user-data -extract /meta-data meta-data 2>/dev/null
	[ "$(head -n 1 user-data)" = '#cloud-config' ]
	grep -qx "    realname: \"O'Neil #1\"" user-data
}

# answers ISO FILE...: prepare an installation from ISO and take files out of its answer medium; "ram/NAME" is one in the
# initial RAM disk's root directory.
answers() {
	local iso=$1 aux file
	shift
	vbm unattended install m --iso "$iso" --user me --password secret --full-user-name "O'Neil #1" --locale de_DE \
		--hostname guest.example.org --time-zone Europe/Berlin --proxy http://10.0.2.2:3128/ --install-additions \
		--additions-iso "$iso" --package-selection-adjustment minimal --post-install-command 'echo "a b" >/root/x'
	succeeds
	aux=$(ls "$HOME/VirtualBox VMs/m/"*aux.iso)
	mkdir ram
	for file in "$@"; do
		[[ $file == ram/* ]] || xorriso -osirrox on -indev "$aux" -extract "/$file" "$file" 2>/dev/null
	done
	if [[ "$*" == *ram/* ]]; then
		xorriso -osirrox on -indev "$aux" -extract /initrd.img initrd 2>/dev/null
		python3 -c 'import sys; d = open("initrd", "rb").read(); sys.stdout.buffer.write(d[d.index(b"070701"):])' |
			(cd ram && cpio -i --quiet)
	fi
	chmod -R u+rw .
}

@test "debconf takes Debian's and Ubuntu's answers, and a shell their scripts" {
	debian
	machine
	answers deb.iso ram/preseed.cfg
	debconf-set-selections -c ram/preseed.cfg
	[ "$(grep -c '^d-i mirror/http/proxy string http://10.0.2.2:3128/$' ram/preseed.cfg)" = 1 ]
	busybox sh -n ram/vboxpostinstall.sh
	rm -rf ram initrd "$HOME/VirtualBox VMs/m/"*aux.iso
	put o/.disk/info 'Ubuntu-Server 16.04.6 LTS "Xenial Xerus" - Release amd64 (20190226)'
	kernel o/install/vmlinuz
	: | gzip >o/install/initrd.gz
	iso o
	answers o.iso ram/preseed.cfg
	debconf-set-selections -c ram/preseed.cfg
	# What debconf reads over, the shell would run into.
	busybox sh -n ram/vboxpostinstall.sh
	sed -n 's/^d-i preseed\/late_command string //p; s/^d-i partman\/early_command string //p' ram/preseed.cfg |
		busybox sh -n
}

@test "Alpine's answers are what setup-alpine sources, in a root file system's overlay" {
	put a/.alpine-release 'alpine-virt 3.18.4 230928'
	kernel a/boot/vmlinuz-virt
	: | gzip >a/boot/initramfs-virt
	iso a
	machine
	answers a.iso lodge.apkovl.tar.gz
	tar -xzf lodge.apkovl.tar.gz -C ram
	busybox sh -n ram/etc/local.d/install.start
	[ -L ram/etc/runlevels/default/local ]
	run busybox sh -euc '. ram/etc/lodge.answers; echo "$HOSTNAMEOPTS|$TIMEZONEOPTS|$PROXYOPTS|$SSHDOPTS"
		echo "$INTERFACESOPTS" | grep -x "iface eth0 inet dhcp"'
	succeeds
	says '-n guest.example.org|-z Europe/Berlin|http://10.0.2.2:3128/|-c openssh
iface eth0 inet dhcp'
}

@test "a kickstart's sections are closed, its scripts are a shell's, and it has what anaconda insists on" {
	put f/.treeinfo $'[general]\nfamily = Fedora\nversion = 38\narch = x86_64'
	kernel f/images/pxeboot/vmlinuz
	: | gzip >f/images/pxeboot/initrd.img
	iso f
	machine
	answers f.iso ram/ks.cfg
	awk '/^%(packages|post|pre)/ { if (open) exit 1; open = 1; next } /^%end$/ { if (!open) exit 1; open = 0 }
		END { exit open }' ram/ks.cfg
	awk '/^%post/ { inside = 1; next } /^%end$/ { inside = 0 } inside' ram/ks.cfg | busybox sh -n
	busybox sh -n ram/vboxpostinstall.sh
	for word in lang keyboard timezone rootpw autopart bootloader url; do
		[ "$(grep -c "^$word " ram/ks.cfg)" = 1 ] || [ "$(grep -cx "$word" ram/ks.cfg)" = 1 ]
	done
	# Every line before the first section is a command of anaconda's.
	! sed '/^%/,$d; /^#/d; /^$/d; s/ .*//' ram/ks.cfg | grep -vxE 'text|lang|keyboard|timezone|network|cdrom|url|rootpw|user|firewall|firstboot|zerombr|clearpart|autopart|bootloader|reboot'
}

@test "bad values, templates and machines are refused before anything is done" {
	debian
	machine
	while IFS='|' read -r option text; do
		# shellcheck disable=SC2086 # words
		vbm unattended install m --iso deb.iso $option
		fails_with 1 "$text"
	done <<-'END'
	--user=Me|Invalid user name 'Me'
	--user=root|The user cannot be root
	--locale=german|Invalid locale 'german'
	--country=de|Invalid country 'de'
	--hostname=short|Invalid host name 'short'
	--package-selection-adjustment=big|Unknown keyword: big
	--time-zone=Mars$(x)|Invalid time zone
	--image-index=2|There is no image 2
	--proxy=nowhere|Invalid proxy 'nowhere'
	--script-template=/nowhere|The template '/nowhere' cannot be read
	--additions-iso=/nowhere.iso --install-additions|The disc of the additions '/nowhere.iso' cannot be read
	--password=|A password has from 1 to 256 characters
	END
	echo 'x @@VBOX_INSERT_NOTHING@@' >bad
	vbm unattended install m --iso deb.iso --script-template bad
	fails_with 1 "bad:1: there is no place '@@VBOX_INSERT_NOTHING@@'"
	printf 'a\n@@VBOX_COND_IS_MINIMAL_INSTALLATION@@\n' >bad
	vbm unattended install m --iso deb.iso --script-template bad
	fails_with 1 "a condition is not ended"
	VBoxManage storageattach m --storagectl SATA --port 0 --device 0 --type hdd --medium none
	vbm unattended install m --iso deb.iso
	fails_with 1 "The machine 'm' has no hard disk to install to"
	[ -z "$(ls "$HOME/VirtualBox VMs/m" | grep iso)" ]
}

@test "an own template gets what it asks for" {
	debian
	machine
	cat >own <<-'END'
	u=@@VBOX_INSERT_USER_LOGIN_SH@@ p=@@VBOX_INSERT_USER_PASSWORD@@ f=@@VBOX_INSERT_USER_FULL_NAME_ELEMENT@@
	@@VBOX_COND_IS_MINIMAL_INSTALLATION@@
	small
	@@VBOX_COND_ELSE@@
	@@VBOX_COND_NOT_HAS_PROXY@@
	large, direct
	@@VBOX_COND_END@@
	@@VBOX_COND_END@@
	END
	vbm unattended install m --iso deb.iso --script-template own --password 'p<w' --full-user-name 'A & B'
	succeeds
	xorriso -osirrox on -indev "$HOME/VirtualBox VMs/m/"*aux.iso -extract /initrd.img initrd 2>/dev/null
	grep -aqF "u='vboxuser' p=p<w f=A &amp; B" initrd
	grep -aqx 'large, direct' initrd
	! grep -aqx small initrd
}

@test "when the disk has been installed to, the discs are taken out and the answers removed" {
	debian
	machine
	VBoxManage createmedium disk --filename m.img --size 64 --format RAW 2>/dev/null
	VBoxManage storageattach m --storagectl SATA --port 0 --device 0 --type hdd --medium m.img
	VBoxManage unattended install m --iso deb.iso >/dev/null
	aux=$(ls "$HOME/VirtualBox VMs/m/"*aux.iso)
	VBoxManage list vms >/dev/null
	[ -e "$aux" ]
	# A new partition table with libparted's code: it has only begun.
	printf '\xfa\xb8\x00\x10' | dd of=m.img conv=notrunc 2>/dev/null
	printf '\x55\xaa' | dd of=m.img bs=1 seek=510 conv=notrunc 2>/dev/null
	VBoxManage list vms >/dev/null
	[ -e "$aux" ]
	printf '\xeb\x63' | dd of=m.img conv=notrunc 2>/dev/null
	VBoxManage list vms >/dev/null
	[ ! -e "$aux" ]
	VBoxManage showvminfo m --machinereadable | grep -qxF '"IDE-0-0"="emptydrive"'
	VBoxManage showvminfo m --machinereadable | grep -qxF '"IDE-1-0"="emptydrive"'
	[ -z "$(VBoxManage getextradata m Lodge/Unattended | grep -v 'No value')" ]
}

@test "a machine that is removed before its installation is over takes the answers with it" {
	debian
	for base in "" "$PWD/elsewhere-"; do
		machine
		vbm unattended install m --iso deb.iso ${base:+--auxiliary-base-path "$base"}
		succeeds
		aux=$(mr m IDE-0-0)
		[[ -f $aux && ( -z $base || $aux == "$base"aux.iso ) ]]
		grep -qF "$aux" <(VBoxManage list dvds)
		VBoxManage unregistervm m --delete 2>/dev/null
		[ ! -e "$aux" ]
		! grep -qF aux.iso <(VBoxManage list dvds)
		[ ! -e "$HOME/VirtualBox VMs/m" ]
	done
	[ -f deb.iso ]
}

@test "answers that are made anew elsewhere leave none behind, and a machine that is only let go keeps them" {
	debian
	machine
	VBoxManage unattended install m --iso deb.iso >/dev/null
	first=$(mr m IDE-0-0)
	VBoxManage unattended install m --iso deb.iso --auxiliary-base-path "$PWD/again-" >/dev/null
	[[ ! -e $first && -f again-aux.iso ]]
	settings=$(mr m CfgFile)
	VBoxManage unregistervm m
	[ -f again-aux.iso ]
	VBoxManage registervm "$settings"
	VBoxManage unregistervm m --delete 2>/dev/null
	[ ! -e again-aux.iso ]
}
