#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# VirtualBox's display adapter with the driver of a stock kernel (vboxvideo), as it is.

load common
load state

setup_file() {
	setup_file_common
	# The modules are not in the small Linux: it gets them by a shared folder.
	mkdir "$BATS_FILE_TMPDIR/modules"
	test/guest/modules "$LODGE_OUT/cache" vboxvideo | (cd "$BATS_FILE_TMPDIR/modules" && cpio -i --quiet)
}

setup() {
	state_setup
}

teardown() {
	state_teardown
}

# size FILE: width and height of a PNG; "black" if nothing else is in it.
size() {
	python3 - "$1" <<'PY'
import struct, sys, zlib
d = open(sys.argv[1], "rb").read()
w, h = struct.unpack(">II", d[16:24])
at, z = 8, b""
while at < len(d):
    n, kind = struct.unpack(">I4s", d[at:at + 8])
    z += d[at + 8:at + 8 + n] if kind == b"IDAT" else b""
    at += 12 + n
print(f"{w}x{h}", "" if any(zlib.decompress(z).replace(bytes([1]), b"").replace(bytes([2]), b"").replace(bytes([4]), b"")) else "black")
PY
}

# shows SIZE [SCREEN]: the screen has that size, and something on it.
shows() {
	VBoxManage controlvm box screenshotpng "$HOME/now.png" "${2:-0}" && [[ $(size "$HOME/now.png") == "$1 " ]]
}

prefers() { # CONNECTOR MODE
	[[ $(sh_in_guest "$shell_port" "head -n 1 /sys/class/drm/card0-VGA-$1/modes") == *"$2"* ]]
}

@test "a stock kernel's vboxvideo sets modes, two screens, and follows setvideomodehint" {
	linux box 256
	VBoxManage modifyvm box --vram 32 --monitorcount 2
	VBoxManage sharedfolder add box --name modules --hostpath "$BATS_FILE_TMPDIR/modules" --readonly
	VBoxManage startvm box --type headless >/dev/null
	# Firmware, boot loader and the kernel's console go without a driver.
	wait_for 90 sh_in_guest "$shell_port" true
	shows 720x400
	run VBoxManage controlvm box setvideomodehint 1024 768 32 2
	[[ $status -ne 0 && $output == *"no display 2"* ]]

	VBoxManage controlvm box setvideomodehint 800 600 32 1 # before there is a driver: it asks
	sh_in_guest "$shell_port" 'mkdir -p /m && mount -t vboxsf modules /m && for m in $(cat /m/extra/order); do insmod /m/extra/$m; done'
	wait_for 30 shows 1024x768
	prefers 1 1024x768
	prefers 2 800x600
	shows "$(sh_in_guest "$shell_port" 'tr , x </sys/class/graphics/fb0/virtual_size')" 1 || shows 800x600 1

	VBoxManage controlvm box setvideomodehint 800 600 32
	wait_for 30 prefers 1 800x600
	wait_for 30 shows 800x600
	[[ $(VBoxManage showvminfo box --machinereadable) == *'VideoMode="800,600,0"'* ]]
	VBoxManage controlvm box savestate >/dev/null 2>&1
	VBoxManage startvm box --type headless >/dev/null
	shows 800x600
	VBoxManage controlvm box setvideomodehint 640 480 32
	wait_for 30 prefers 1 640x480
	wait_for 30 shows 640x480
	# A reset ends it: the firmware's text is there again.
	VBoxManage controlvm box reset
	wait_for 30 shows 720x400
}

# point PORT X Y MASK: a VNC viewer's pointer goes there, with these buttons.
point() {
	python3 - "$@" <<'PY'
import socket, struct, sys
port, x, y, mask = map(int, sys.argv[1:])
s = socket.create_connection(("127.0.0.1", port), 10)
f = s.makefile("rb")
f.read(12)
s.sendall(b"RFB 003.008\n")
f.read(f.read(1)[0])
s.sendall(b"\1")
assert f.read(4) == bytes(4)
s.sendall(b"\1")
width, height = struct.unpack(">HH", f.read(4))
f.read(struct.unpack(">16xI", f.read(20))[0])
s.sendall(struct.pack(">BBHH", 5, mask, x, y) + struct.pack(">BBHHHH", 3, 0, 0, 0, 1, 1))
f.read(1)  # the answer: what came before was taken
print(width, height)
PY
}

# Each event: 16 bytes of time, type 3, axis 0 or 1, value.
heard_places() {
	local seen
	seen=$(sh_in_guest "$shell_port" 'od -An -tu2 -v -w24 /tmp/raw' | awk '{ print $9, $10, $11 }')
	[[ $seen == *"3 0 65535"* && $seen == *"3 1 1642"* ]]
}

@test "the pointer of a VNC viewer is where it is in a guest with the kernel's vboxguest" {
	linux box 128
	port=$(free_port)
	VBoxManage modifyvm box --vrde on --vrdeport "$port"
	VBoxManage startvm box --type headless >/dev/null
	wait_for 90 sh_in_guest "$shell_port" true
	sh_in_guest "$shell_port" 'e=$(sed -n "/VirtualBox mouse/,/^$/s/.*\(event[0-9]*\).*/\1/p" /proc/bus/input/devices); dd bs=24 if=/dev/input/$e of=/tmp/raw 2>/dev/null & true'
	wait_for 20 sh_in_guest "$shell_port" 'ls -l /proc/[0-9]*/fd | grep -q /dev/input/event'
	[[ $(point "$port" 719 100 0) == "720 400" ]]
	wait_for 20 heard_places
}
