#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# May take 5400 seconds.
# Debian's own installer, from Debian's netboot image, answers nothing but what VBoxManage unattended install has given it,
# installs Debian over the network, restarts, and the user logs in. See tools/make-installer-iso for what is fetched.

load ../guest/common

setup_file() {
	export PATH=$LODGE_BIN:$PATH:/sbin:/usr/sbin LODGE_ENGINE=${LODGE_TEST_ENGINE:-auto}
	INSTALLER=$LODGE_OUT/installer.iso
	export INSTALLER
	[[ -f $INSTALLER && $INSTALLER -nt tools/make-installer-iso ]] ||
		tools/make-installer-iso "$INSTALLER" "$LODGE_OUT/cache"
	export ROOT=$PWD
}

setup() {
	export HOME=$BATS_TEST_TMPDIR LODGE_HOME=$BATS_TEST_TMPDIR/lodge
	cd "$HOME"
	port=$(free_port)
	password='a "secret" $word'
	printf '%s\n' "$password" >password
	# ssh asks this for the password.
	printf '#!/bin/sh\ncat "%s/password"\n' "$HOME" >askpass
	chmod 700 askpass
	coproc MIRROR { exec "$ROOT/tools/installer-mirror" --log "$HOME/mirror.log" "$INSTALLER.udebs" 3>&-; }
	read -r proxy <&"${MIRROR[0]}"
}

teardown() {
	VBoxManage controlvm installed poweroff >/dev/null 2>&1 || true
	[[ -z ${MIRROR_PID:-} ]] || kill "$MIRROR_PID" 2>/dev/null || true
	rm -rf "$HOME/VirtualBox VMs" installed.vdi
}

in_guest() { # COMMAND, as the user, who gives the password
	SSH_ASKPASS=$HOME/askpass SSH_ASKPASS_REQUIRE=force setsid -w ssh -p "$port" -o StrictHostKeyChecking=no \
		-o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -o ConnectTimeout=30 -o NumberOfPasswordPrompts=1 \
		-o PubkeyAuthentication=no me@127.0.0.1 "$@" </dev/null
}

as_root() { # COMMAND, without quotes in it
	in_guest "sudo -S -p '' $1 <<'END'
$password
END"
}

runs() {
	VBoxManage showvminfo installed --machinereadable | grep -qx 'VMState="running"'
}

# The installed system lets the user in; an end of the machine ends the waiting.
logged_in() {
	runs || { echo "the machine ended"; return 2; }
	in_guest true 2>/dev/null
}

wait_for_login() { # SECONDS
	local end=$((SECONDS + $1)) code
	until logged_in; do
		code=$?
		[[ $code != 2 && $SECONDS -lt $end ]] || {
			show console | tr -d '\033'
			show mirror.log
			return 1
		}
		sleep 3
	done
}

agent_answers() {
	VBoxManage guestcontrol installed run --username me --passwordfile password --exe /bin/hostname -- hostname
}

@test "Debian's installer installs Debian, and the user logs in with the additions running" {
	VBoxManage createvm --name installed --ostype Debian12_64 --register --default
	VBoxManage createmedium disk --filename installed.vdi --size 4096
	VBoxManage storageattach installed --storagectl SATA --port 0 --device 0 --type hdd --medium installed.vdi
	VBoxManage modifyvm installed --memory 1536 --cpus 2 --uart1 0x3f8 4 --uartmode1 file "$HOME/console" \
		--natpf1 "ssh,tcp,127.0.0.1,$port,,22"
	# Of drivers in the initial RAM disk only those needed: making it is half of the work otherwise.
	small=base-installer/initramfs-tools/driver-policy=dep
	start=$SECONDS
	VBoxManage unattended install installed --iso="$INSTALLER" --user me --password-file password \
		--full-user-name "Me Myself" --hostname guest.example.org --time-zone Europe/Berlin --install-additions \
		--package-selection-adjustment minimal --proxy "http://10.0.2.2:$proxy/" \
		--post-install-command 'echo "done by $(id -un)" >/root/post-install' \
		--extra-install-kernel-parameters "mirror/udeb/suite=lodge-udebs $small console=tty0 console=ttyS0,115200" \
		--start-vm headless
	wait_for_login 4800
	echo "# installed and logged in to after $((SECONDS - start)) s" >&3

	# It is Debian, on the disk, with what was asked for.
	in_guest 'cat /etc/os-release' | grep -qx 'VERSION_CODENAME=bookworm'
	[ "$(in_guest hostname -f)" = guest.example.org ]
	[ "$(in_guest readlink /etc/localtime)" = /usr/share/zoneinfo/Europe/Berlin ]
	in_guest 'getent passwd me' | grep -q ':Me Myself[,:]'
	in_guest findmnt -n -o SOURCE / | grep -q '^/dev/sda'
	[ "$(as_root 'cat /root/post-install')" = "done by root" ]
	in_guest cat /proc/cmdline | grep -q console=ttyS0 # what followed --- is for the installed system as well

	# The additions run.
	wait_for 120 agent_answers
	[ "$(agent_answers)" = guest ]
	[ "$(as_root 'systemctl is-active lodge-agent')" = active ]

	# Nothing is left of the answers, on either side, and the password is nowhere.
	VBoxManage list vms >/dev/null
	[ -z "$(ls "VirtualBox VMs/installed/" | grep aux)" ]
	[ -z "$(as_root 'ls /root/ | grep vboxpostinstall')" ]
	[ -z "$(as_root "grep -rlF '$password' /var/log/lodge-unattended.log /var/log/installer /root")" ]
	[ -z "$(grep -rlF "$password" lodge "VirtualBox VMs" mirror.log console)" ]

	as_root 'systemctl poweroff' || true
	wait_for 120 eval '! runs'
}

# What udpkg knows in the initial RAM disk, and what comes with the components.
questions() {
	local file
	xorriso -osirrox on -indev "$INSTALLER" -extract /initrd.gz initrd.gz 2>/dev/null
	mkdir ram
	(cd ram && zcat ../initrd.gz 2>/dev/null | cpio -id --quiet '*.templates' '*templates.dat')
	find ram -type f -exec sed -n 's/^\(Template\|Name\): *//p' {} +
	for file in "$INSTALLER.udebs/pool/lodge/"*.udeb; do
		dpkg-deb -I "$file" templates 2>/dev/null | sed -n 's/^Template: *//p'
	done
}

@test "every question that the answers for Debian are given to is one that its installer asks" {
	questions | sort -u >known
	[ "$(wc -l <known)" -gt 500 ]
	# Asked by what is not on this disc: from a CD, with LVM or RAID on the disk before, by later versions.
	printf '%s\n' console-setup/ask_detect user-setup/allow-password-weak user-setup/encrypt-home \
		partman-lvm/device_remove_lvm partman-md/device_remove_md apt-setup/cdrom/set-first \
		apt-setup/cdrom/set-next apt-setup/cdrom/set-failed cdrom-detect/eject >>known
	[ -z "$(sed -n 's/^d-i \([^ ]*\) .*/\1/p' "$ROOT/templates/UnattendedTemplates/debian_preseed.cfg" |
		grep -vxF -f known | tee /dev/stderr)" ]
}

@test "cloud-init finds Ubuntu's answers, and what they have for the first start, to be as its schema says" {
	local deb
	while read -r deb; do
		dpkg-deb -x "$deb" cloud-init
	done < <("$ROOT/tools/fetch-deb" "$LODGE_OUT/cache" cloud-init python3-jsonschema python3-attr python3-pyrsistent \
		python3-yaml python3-configobj python3-jinja2 python3-markupsafe python3-jsonpatch python3-json-pointer \
		python3-oauthlib python3-requests python3-urllib3 python3-chardet python3-charset-normalizer python3-idna \
		python3-certifi python3-six python3-netifaces python3-serial python3-blinker python3-jwt python3-cryptography)
	mkdir -p u/.disk u/casper
	echo 'Ubuntu-Server 22.04.3 LTS "Jammy Jellyfish" - Release amd64 (20230810)' >u/.disk/info
	xorriso -osirrox on -indev "$INSTALLER" -extract /linux u/casper/vmlinuz 2>/dev/null
	echo x >u/casper/initrd
	xorriso -as mkisofs -quiet -V UBUNTU -R -o u.iso u 2>/dev/null
	VBoxManage createvm --name installed --ostype Ubuntu_64 --register --default
	VBoxManage createmedium disk --filename installed.vdi --size 64
	VBoxManage storageattach installed --storagectl SATA --port 0 --device 0 --type hdd --medium installed.vdi
	VBoxManage unattended install installed --iso u.iso --user me --password-file password --full-user-name "O'Neil #1" \
		--hostname guest.example.org --time-zone Europe/Berlin --install-additions --proxy http://10.0.2.2:3128/ \
		--package-selection-adjustment minimal
	xorriso -osirrox on -indev "VirtualBox VMs/installed/"*aux.iso -extract /user-data user-data 2>/dev/null
	PYTHONPATH=cloud-init/usr/lib/python3/dist-packages python3 - <<-'END'
		import yaml
		auto = yaml.safe_load(open("user-data"))["autoinstall"]
		assert auto["identity"]["realname"] == "O'Neil #1" and auto["version"] == 1
		assert auto["identity"]["password"].startswith("$6$") and auto["proxy"] == "http://10.0.2.2:3128/"
		# The keys of Ubuntu's reference for autoinstall.
		assert not set(auto) - set("""version interactive-sections early-commands locale refresh-installer keyboard source
  network proxy apt storage identity active-directory ubuntu-pro ssh codecs drivers snaps debconf-selections
  packages kernel kernel-crash-dumps timezone updates shutdown late-commands error-commands reporting
  user-data""".split())
		with open("first-start", "w") as f:
		    f.write("#cloud-config\n" + yaml.dump(auto["user-data"]))
	END
	for file in user-data first-start; do
		PYTHONPATH=cloud-init/usr/lib/python3/dist-packages python3 -m cloudinit.cmd.main schema --config-file $file
	done
}
