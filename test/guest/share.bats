#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# Shared folders with the drivers of a stock kernel (vboxguest, vboxsf), as they are.

load common

setup_file() {
	setup_file_common
}

# The script is too long for a kernel's command line: it comes through the folder.
@test "a stock kernel mounts shared folders, both sides see what the other writes, nothing leads out" {
	d=$BATS_TEST_TMPDIR/src
	mkdir -p "$d/sub/deep" "$BATS_TEST_TMPDIR/ro" "$BATS_TEST_TMPDIR/links" "$BATS_TEST_TMPDIR/outside"
	echo from-host >"$d/a.txt"
	echo secret >"$BATS_TEST_TMPDIR/outside/secret"
	ln -s "$BATS_TEST_TMPDIR/outside" "$d/out"
	ln -s ../../outside/secret "$d/sub/up"
	ln -s a.txt "$d/inside"
	mkfifo "$d/fifo"
	echo fixed >"$BATS_TEST_TMPDIR/ro/f"
	seq 120 | while read -r n; do echo "$n" >"$d/sub/deep/file-with-a-longer-name-$n"; done
	cat >"$d/script" <<'GUEST'
mkdir /ro /links
mount -t vboxsf nope /ro 2>/dev/null && echo BAD-nope
mount -t vboxsf ro /ro && mount -t vboxsf links /links && echo OK-mounted
[ "$(cat /mnt/a.txt)" = from-host ] && [ "$(cat /mnt/inside)" = from-host ] && echo OK-read
[ "$(ls /mnt/sub/deep | wc -l)" = 120 ] && [ "$(cat /mnt/sub/deep/* | sort -n | tail -n 1)" = 120 ] && echo OK-list
echo from-guest >/mnt/new && echo more >>/mnt/new && mkdir -m 750 /mnt/dir && mv /mnt/new /mnt/dir/moved && echo OK-write
dd if=/dev/urandom of=/mnt/big bs=65536 count=40 2>/dev/null && sync && md5sum </mnt/big | cut -d" " -f1 >/mnt/sum && echo OK-big
chmod 640 /mnt/dir/moved && [ "$(stat -c %a /mnt/dir/moved)" = 640 ] && touch -d "2001-02-03 04:05:06" /mnt/dir/moved && echo OK-attributes
chmod 0 /mnt/a.txt && chmod 644 /mnt/a.txt && chmod 4755 /mnt/dir/moved; truncate -s 3 /mnt/a.txt && [ "$(cat /mnt/a.txt)" = fro ] && echo OK-truncate
ln -s a.txt /mnt/l 2>/dev/null && echo BAD-symlink
ln -s x /links/l && [ "$(readlink /links/l)" = x ] && echo OK-symlink
cat /mnt/out/secret 2>/dev/null && echo BAD-out
cat /mnt/sub/up 2>/dev/null && echo BAD-up
cat /mnt/../outside/secret 2>/dev/null && echo BAD-dots
echo x >/mnt/out/written 2>/dev/null; mkdir /mnt/out/made 2>/dev/null; rm -r /mnt/out/secret 2>/dev/null
echo x >/ro/g 2>/dev/null && echo BAD-ro; rm /ro/f 2>/dev/null && echo BAD-rm; chmod 777 /ro/f 2>/dev/null && echo BAD-chmod
[ "$(cat /ro/f)" = fixed ] && echo OK-ro
rmdir /mnt/dir 2>/dev/null && echo BAD-rmdir; rm /mnt/inside && rm -r /mnt/sub/deep && echo OK-remove
df /mnt | grep -q src && umount /links && umount /ro && umount /mnt && echo OK-umount
rmmod vboxsf && rmmod vboxguest && echo OK-unload
GUEST
	boot_linux 'mkdir /mnt; mount -t vboxsf src /mnt; cp /mnt/script /tmp/share; sh /tmp/share' --share "src=$d" --share "ro=$BATS_TEST_TMPDIR/ro,ro" --share "links=$BATS_TEST_TMPDIR/links,symlinks"
	for word in mounted read list write big attributes truncate symlink ro remove umount unload; do
		grep -q "OK-$word" "$console" || { echo "not OK-$word"; show "$console"; return 1; }
	done
	! grep -q BAD- "$console" || { show "$console"; return 1; }
	[[ $(cat "$d/dir/moved") == $'from-guest\nmore' ]]
	[[ $(md5sum <"$d/big" | cut -d' ' -f1) == "$(cat "$d/sum")" ]]
	[[ $(stat -c %a "$d/dir") == 750 && $(stat -c %a "$d/dir/moved") == 755 ]]
	[[ $(stat -c %Y "$d/dir/moved") == 981173106 ]]
	[[ $(cat "$d/a.txt") == fro && ! -e $d/sub/deep && -L $d/out && ! -L $d/inside && ! -e $d/l ]]
	[[ -L $BATS_TEST_TMPDIR/links/l && $(ls "$BATS_TEST_TMPDIR/outside") == secret ]]
	[[ $(cat "$BATS_TEST_TMPDIR/ro/f") == fixed ]]
}
