#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# USB devices and the sound card, with the drivers of a stock kernel.

load common

setup_file() {
	setup_file_common
	local root=$BATS_FILE_TMPDIR/root
	mkdir -p "$root/extra"
	gcc -static -O2 -o "$root/extra/tone" "$BATS_TEST_DIRNAME/tone.c"
	{
		cat "$ISO.initrd"
		head -c $((-$(stat -c %s "$ISO.initrd") & 3)) /dev/zero
		"$BATS_TEST_DIRNAME/modules" "$LODGE_OUT/cache" xhci-pci usbhid hid-generic usb-storage evdev snd-intel8x0 \
			snd-hda-codec-idt snd-hda-codec-generic snd-hda-intel snd-pcm-oss \
			snd-mixer-oss
		(cd "$root" && echo extra/tone | cpio --quiet -o -H newc)
	} >"$BATS_FILE_TMPDIR/initrd"
	export LODGE_ENGINE=${LODGE_TEST_ENGINE:-auto}
}

# run_guest SCRIPT OPTION...: as boot_linux, with the modules loaded.
run_guest() {
	local text='while read -r m; do insmod /extra/$m 2>/dev/null; done </extra/order
'$1
	shift
	timeout 120 lodge boot --memory 256 --kernel "$ISO.vmlinuz" --initrd "$BATS_FILE_TMPDIR/initrd" --timeout 110 \
		--append "console=ttyS0 quiet $(script <<<"$text")" --serial "file:$console" --display none "$@"
}

@test "Linux finds the tablet, the keyboard and the disk on the USB controller" {
	head -c 4M /dev/urandom >"$BATS_TEST_TMPDIR/disk"
	sum=$(md5sum <"$BATS_TEST_TMPDIR/disk")
	run_guest 'n=0; until [ -b /dev/sda ] && grep -q Tablet /proc/bus/input/devices || [ $n = 20 ]; do sleep 0.5; n=$((n + 1)); done
		cat /proc/bus/input/devices; md5sum </dev/sda; cat /sys/bus/usb/devices/*/product
		echo written-by-the-guest | dd of=/dev/sda bs=512 seek=5 conv=sync,fsync' \
		--device usb-tablet --device usb-keyboard --disk "$BATS_TEST_TMPDIR/disk,bus=usb"
	for text in 'Name="Lodge USB Tablet"' 'Name="Lodge USB Keyboard"' 'USB Disk' "${sum%% *}"; do
		grep -qF "$text" "$console" || { show "$console"; false; }
	done
	[ "$(dd if="$BATS_TEST_TMPDIR/disk" bs=512 skip=5 count=1 2>/dev/null | head -n 1)" = written-by-the-guest ]
}

# tone_in FILE: a second of 440 Hz is in it.
tone_in() {
	python3 - "$1" <<-'PY'
	import struct, sys, wave
	w = wave.open(sys.argv[1])
	n = w.getnframes()
	left = struct.unpack("<%dh" % (2 * n), w.readframes(n))[::2]
	loud = [i for i, v in enumerate(left) if abs(v) > 100]
	rises = sum(1 for a, b in zip(left, left[1:]) if a < 0 <= b)
	print(w.getparams(), rises, loud[-1] - loud[0], max(left))
	assert w.getframerate() == 48000 and 436 <= rises <= 450
	assert 47000 < loud[-1] - loud[0] < 51000 and 11900 < max(left) <= 12000
	PY
}

@test "a second of a tone is a second of that tone in the file" {
	run_guest '/extra/tone; echo played $?; grep . /proc/asound/cards' --device "ac97=$BATS_TEST_TMPDIR/tone.wav"
	grep -q 'played 0' "$console" || { show "$console"; false; }
	grep -q 'Intel 82801AA-ICH with AD1980' "$console"
	tone_in "$BATS_TEST_TMPDIR/tone.wav"
}

@test "the HD Audio controller plays it too, with Linux's driver for its codec" {
	# The driver looks for its codec after insmod has come back.
	run_guest 'n=0; until [ -c /dev/dsp ] && grep -q "VOLUME \"Master" /proc/asound/card0/oss_mixer || [ $n = 100 ]; do sleep 0.1; n=$((n + 1)); done
		/extra/tone; echo played $?; grep . /proc/asound/cards /proc/asound/card0/codec#0' \
		--device "hda=$BATS_TEST_TMPDIR/tone.wav"
	grep -q 'played 0' "$console" || { show "$console"; false; }
	grep -q 'Codec: SigmaTel STAC9221 A1' "$console" || { show "$console"; false; }
	tone_in "$BATS_TEST_TMPDIR/tone.wav"
}
