#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# Disks that come and go while a stock kernel runs, floppy disks, limits of bandwidth, a host without room.

load common

setup_file() {
	setup_file_common
}

setup() {
	console=$BATS_TEST_TMPDIR/console # what the guest says
	line=$BATS_TEST_TMPDIR/line
	export HOME=$BATS_TEST_TMPDIR/home LODGE_HOME=$BATS_TEST_TMPDIR/lodge
	mkdir -p "$HOME"
}

teardown() {
	VBoxManage controlvm m poweroff >/dev/null 2>&1 || true
	[[ -z ${talk:-} ]] || kill "$talk" 2>/dev/null || true
	! mountpoint -q "$BATS_TEST_TMPDIR/small" || umount "$BATS_TEST_TMPDIR/small"
}

# Boots the demo CD with a shell on the serial line; `guest COMMAND` types there.
start_machine() {
	VBoxManage createvm --name m --ostype Linux26_64 --register >/dev/null
	VBoxManage modifyvm m --memory 256 --nic1 none --uart1 0x3f8 4 --uartmode1 server "$line" --boot1 dvd
	VBoxManage storagectl m --name IDE --add ide
	VBoxManage storageattach m --storagectl IDE --port 1 --device 0 --type dvddrive --medium "$ISO"
	"$@"
	VBoxManage startvm m --type headless
	mkfifo "$BATS_TEST_TMPDIR/keys"
	exec 9<>"$BATS_TEST_TMPDIR/keys"
	socat - "UNIX-CONNECT:$line" <&9 >"$console" 3>&- &
	talk=$!
	wait_for 100 grep -q LODGE-GUEST-READY "$console"
	wait_for 30 shell_answers # what is typed before it reads is lost
}

said() { # TEXT
	tr -d '\r' <"$console" | grep -qF -- "$1"
}

shell_answers() {
	echo 'echo HEL"LO"' >&9
	sleep 1
	said HELLO
}

# guest SECONDS COMMAND: run it in the guest and wait until it is done, whatever its status.
guest() {
	turn=$((${turn:-0} + 1))
	echo "$2; echo \"DO\"NE-$turn-\$?" >&9
	wait_for "$1" said "DONE-$turn-"
}

works() {
	guest "$@" && said "DONE-$turn-0" || { show "$console"; return 1; }
}

image() { # FILE MB
	VBoxManage createmedium disk --filename "$1" --size "$2" >/dev/null 2>&1
}

plug_and_unplug() { # CONTROLLER DEVICE
	image "$HOME/new.vdi" 20
	VBoxManage storageattach m --storagectl "$1" --port 1 --device 0 --type hdd --medium "$HOME/new.vdi"
	works 60 "for i in \$(seq 30); do test -b /dev/$2 && break; sleep 1; done; dmesg | tail -n 5; test -b /dev/$2"
	works 60 "yes lodge | head -c 4000000 >/tmp/x; dd if=/tmp/x of=/dev/$2 bs=64k conv=fsync"
	VBoxManage showvminfo m --machinereadable | grep -qx "\"$1-1-0\"=\"$HOME/new.vdi\""
	VBoxManage storageattach m --storagectl "$1" --port 1 --device 0 --medium none
	works 60 "for i in \$(seq 30); do test -b /dev/$2 || break; sleep 1; done; test ! -b /dev/$2"
	VBoxManage controlvm m poweroff 2>/dev/null
	qemu-img convert -O raw "$HOME/new.vdi" "$HOME/new.img"
	cmp -n 4000000 "$HOME/new.img" <(yes lodge | head -c 4000000)
}

@test "a disk is plugged into a SATA controller and out again while Linux runs" {
	sata() { VBoxManage storagectl m --name SATA --add sata --portcount 2; }
	start_machine sata
	plug_and_unplug SATA sda
}

@test "a disk is plugged into a virtio SCSI controller and out again while Linux runs" {
	scsi() { VBoxManage storagectl m --name VSCSI --add virtio-scsi --portcount 2; }
	start_machine scsi
	plug_and_unplug VSCSI sda
}

@test "a disk is plugged into an NVMe controller and out again while Linux runs" {
	nvme() { VBoxManage storagectl m --name NVMe --add pcie --portcount 2; }
	start_machine nvme
	plug_and_unplug NVMe nvme0n1 # Linux counts those it finds
}

@test "a disk that is not hot-pluggable, and controllers without hot plug, refuse" {
	both() {
		VBoxManage storagectl m --name SATA --add sata --portcount 2
		VBoxManage storagectl m --name SCSI --add scsi
		image "$HOME/a.vdi" 5
		VBoxManage storageattach m --storagectl SATA --port 0 --type hdd --medium "$HOME/a.vdi"
	}
	start_machine both
	run VBoxManage storageattach m --storagectl SATA --port 0 --medium none
	[[ $status -eq 1 && $output == *"does not support hot-plugging"* ]]
	image "$HOME/b.vdi" 5
	run VBoxManage storageattach m --storagectl SCSI --port 0 --type hdd --medium "$HOME/b.vdi"
	[[ $status -eq 1 && $output == *"Controller 'SCSI' does not support hot-plugging"* ]]
	run VBoxManage storageattach m --storagectl SATA --port 0 --nonrotational on
	[[ $status -eq 1 && $output == *"The machine is not mutable"* ]]
}

# A program for the guest, which has none: ejects /dev/sr1. It comes at the beginning of a disk.
eject_disk() { # FILE
	gcc -nostdlib -static -Os -fno-stack-protector -o "$1" -x c - <<-'END'
		static long call(long n, long a, long b, long c)
		{
			__asm__ volatile("syscall" : "+a"(n) : "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
			return n;
		}
		void _start(void)
		{
			long fd = call(2, (long)"/dev/sr1", 04000, 0); /* open, O_NONBLOCK */

			call(60, call(16, fd, 0x5309, 0) != 0, 0, 0); /* exit(ioctl(CDROMEJECT)) */
		}
	END
	truncate -s 1M "$1"
}

fetch_eject() {
	works 60 "cd /tmp && dd if=/dev/sda of=eject bs=64k count=1 && chmod 755 eject"
}

slot() { # WHAT: of the second drive
	VBoxManage showvminfo m --machinereadable | sed -n "s/^\"SATA-$1\"=\"\(.*\)\"$/\1/p"
}

@test "a disc that the guest ejects leaves the machine for good, or with --tempeject until the next start" {
	two_discs() {
		cp "$ISO" "$HOME/second.iso"
		VBoxManage storagectl m --name SATA --add sata --portcount 2 --hostiocache off
		VBoxManage storageattach m --storagectl SATA --port 1 --device 0 --type dvddrive --medium "$HOME/second.iso" --tempeject on
		eject_disk "$HOME/eject.img"
		VBoxManage storageattach m --storagectl SATA --port 0 --device 0 --type hdd --medium "$HOME/eject.img"
	}
	start_machine two_discs
	fetch_eject
	[ "$(slot IsEjected-1-0)" = off ]
	works 60 /tmp/eject
	wait_for 10 ejected
	[ "$(slot 1-0)" = "$HOME/second.iso" ]
	VBoxManage storageattach m --storagectl SATA --port 1 --device 0 --type dvddrive --medium "$HOME/second.iso"
	[ "$(slot IsEjected-1-0)" = off ]
	works 60 "for i in \$(seq 30); do dd if=/dev/sr1 of=/dev/null bs=2k count=20 && break; sleep 1; done"
	works 60 /tmp/eject
	wait_for 10 ejected
	VBoxManage controlvm m poweroff 2>/dev/null
	[ "$(slot IsEjected-1-0)" = off ]
	[ "$(slot 1-0)" = "$HOME/second.iso" ]
	VBoxManage storageattach m --storagectl SATA --port 1 --device 0 --tempeject off
	kill "$talk"
	VBoxManage startvm m --type headless
	socat - "UNIX-CONNECT:$line" <&9 >"$console" 3>&- &
	talk=$!
	wait_for 100 grep -q LODGE-GUEST-READY "$console"
	wait_for 30 shell_answers
	fetch_eject
	works 60 /tmp/eject
	wait_for 10 gone
	VBoxManage controlvm m poweroff 2>/dev/null
	gone
	VBoxManage modifyvm m --memory 200
	gone
}

ejected() {
	[ "$(slot IsEjected-1-0)" = on ]
}

gone() {
	[ "$(slot 1-0)" = emptydrive ]
}

@test "a floppy disk is read, written and changed" {
	yes one | head -c 1474560 >"$BATS_TEST_TMPDIR/1.img"
	yes two | head -c 1474560 >"$BATS_TEST_TMPDIR/2.img"
	floppy() {
		VBoxManage storagectl m --name F --add floppy
		VBoxManage storageattach m --storagectl F --port 0 --device 0 --type fdd --medium "$BATS_TEST_TMPDIR/1.img"
	}
	start_machine floppy
	works 60 "head -c 1474560 /dev/fd0 | md5sum | grep -q $(md5sum <"$BATS_TEST_TMPDIR/1.img" | cut -c1-32)"
	VBoxManage storageattach m --storagectl F --port 0 --device 0 --type fdd --medium "$BATS_TEST_TMPDIR/2.img"
	works 60 "head -c 1474560 /dev/fd0 | md5sum | grep -q $(md5sum <"$BATS_TEST_TMPDIR/2.img" | cut -c1-32)"
	works 60 "printf LODGE | dd of=/dev/fd0 bs=512 seek=2879 conv=sync,fsync"
	VBoxManage storageattach m --storagectl F --port 0 --device 0 --medium emptydrive
	VBoxManage controlvm m poweroff 2>/dev/null
	[[ $(dd if="$BATS_TEST_TMPDIR/2.img" bs=512 skip=2879 status=none | head -c 5) == LODGE ]]
	[[ $(head -c 3 "$BATS_TEST_TMPDIR/1.img") == one ]]
}

@test "SeaBIOS boots a floppy disk, whose program reads the disk's last track" {
	local floppy=$BATS_TEST_TMPDIR/boot.img
	truncate -s 1474560 "$floppy"
	# At 7c00: int 13h reads cylinder 79, head 1, sector 5 to 7e00; what is there goes to port 3f8h.
	printf '\x31\xc0\x8e\xd8\x8e\xc0\xb8\x01\x02\xbb\x00\x7e\xb9\x05\x4f\xb6\x01\xcd\x13\x72\xfe\xba\xfb\x03\xb0\x03\xee\xbe\x00\x7e\xac\x08\xc0\x74\xfe\xba\xf8\x03\xee\xeb\xf5' |
		dd of="$floppy" conv=notrunc status=none
	printf '\x55\xaa' | dd of="$floppy" bs=1 seek=510 conv=notrunc status=none
	printf 'READ FROM THE LAST TRACK' | dd of="$floppy" bs=512 seek=2866 conv=notrunc status=none
	timeout 60 lodge boot --memory 32 --timeout 50 --boot floppy --floppy "$floppy" --serial "file:$console" --display none 3>&- &
	talk=$!
	wait_for 50 grep -qs 'READ FROM THE LAST TRACK' "$console"
}

@test "a limit of bandwidth holds, and changes while the machine runs" {
	slow() {
		VBoxManage storagectl m --name SATA --add sata --portcount 1
		image "$HOME/a.vdi" 50
		VBoxManage bandwidthctl m add slow --type disk --limit 1M
		VBoxManage storageattach m --storagectl SATA --port 0 --type hdd --medium "$HOME/a.vdi" --bandwidthgroup slow
	}
	start_machine slow
	start=$SECONDS
	works 60 "dd if=/dev/zero of=/dev/sda bs=1M count=6 conv=fsync"
	[[ $((SECONDS - start)) -ge 4 ]]
	VBoxManage bandwidthctl m set slow --limit 0
	start=$SECONDS
	works 60 "dd if=/dev/zero of=/dev/sda bs=1M count=6 conv=fsync"
	[[ $((SECONDS - start)) -le 4 ]]
}

@test "a host without room pauses the machine, which goes on when there is some and loses nothing" {
	[[ $(id -u) == 0 ]] || skip "mounting a small tmpfs needs root"
	mkdir "$BATS_TEST_TMPDIR/small"
	mount -t tmpfs -o size=8m tmpfs "$BATS_TEST_TMPDIR/small" || skip "no tmpfs can be mounted here"
	small() {
		VBoxManage storagectl m --name SATA --add sata --portcount 1
		image "$BATS_TEST_TMPDIR/small/a.vdi" 50
		VBoxManage storageattach m --storagectl SATA --port 0 --type hdd --medium "$BATS_TEST_TMPDIR/small/a.vdi"
	}
	start_machine small
	echo "yes lodge | head -c 20000000 >/tmp/x; dd if=/tmp/x of=/dev/sda bs=64k conv=fsync && echo WRIT'TEN'" >&9
	wait_for 60 bash -c "VBoxManage showvminfo m --machinereadable | grep -qx 'VMState=\"paused\"'"
	grep -rq "the host has no room for" "$(VBoxManage showvminfo m --machinereadable | sed -n 's/^LogFldr="\(.*\)"/\1/p')"
	run VBoxManage controlvm m savestate
	[[ $status -eq 1 && $output == *"no room"* ]]
	VBoxManage controlvm m resume # there is no more room yet: it stops again
	wait_for 30 bash -c "VBoxManage showvminfo m --machinereadable | grep -qx 'VMState=\"paused\"'"
	! said WRITTEN
	mount -o remount,size=64m "$BATS_TEST_TMPDIR/small"
	VBoxManage controlvm m resume
	wait_for 60 said WRITTEN
	works 60 "echo 3 >/proc/sys/vm/drop_caches; head -c 20000000 /dev/sda | cmp - /tmp/x"
	VBoxManage controlvm m poweroff 2>/dev/null
	qemu-img check "$BATS_TEST_TMPDIR/small/a.vdi"
}
