#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
load common

hd() { # FILE MB [OPTION...]
	local f=$1 mb=$2
	shift 2
	VBoxManage createmedium disk --filename "$f" --size "$mb" "$@" 2>/dev/null | sed 's/.*UUID: //'
}

# A disk with random data in its first MiB and at 3 MiB, and what it holds as data.raw
filled() { # FILE FORMAT
	truncate -s 6M data.raw
	dd if=/dev/urandom of=data.raw bs=64K count=16 conv=notrunc status=none
	dd if=/dev/urandom of=data.raw bs=64K count=3 seek=48 conv=notrunc status=none
	VBoxManage convertfromraw data.raw "$1" --format "$2" 2>/dev/null
}

field() { # MEDIUM LABEL
	VBoxManage showmediuminfo "$1" | sed -n "s/^$2: *//p"
}

same() { # IMAGE: holds what data.raw does
	VBoxManage clonemedium "$1" same-check.raw --format RAW >/dev/null 2>&1
	cmp data.raw same-check.raw
	VBoxManage closemedium same-check.raw --delete 2>/dev/null
}

@test "a differencing medium knows its parent and the parent its children" {
	base=$(hd base.vdi 5)
	vbm createmedium disk --filename diff --diffparent base.vdi
	succeeds
	diff=${output##*: }
	vbm createmedium --filename q.qcow2 --diffparent "$base" --format QCOW2
	succeeds
	[ "$(field diff.vdi "Parent UUID")" = "$base" ]
	[ "$(field diff.vdi Type)" = "normal (differencing)" ]
	[ "$(field diff.vdi "Format variant")" = "differencing default" ]
	[ "$(field diff.vdi Auto-Reset)" = off ]
	[ "$(field diff.vdi Capacity)" = "5 MBytes" ]
	vbm showmediuminfo base.vdi
	has_line "Child UUIDs:    $diff"
	vbm list hdds
	[ "$(grep -c "Parent UUID:    $base" <<<"$output")" = 2 ]
	vbm closemedium base.vdi
	fails_with 1 "child media"
	VBoxManage closemedium diff.vdi --delete 2>/dev/null
	VBoxManage closemedium q.qcow2 --delete 2>/dev/null
	VBoxManage closemedium base.vdi --delete 2>/dev/null
	[ -z "$(ls)" ] || [ "$(ls)" = lodge ]
}

@test "registering a child registers its parents" {
	base=$(hd base.vmdk 5 --format VMDK)
	VBoxManage createmedium --filename a.vmdk --diffparent base.vmdk --format VMDK >/dev/null 2>&1
	VBoxManage createmedium --filename b.vmdk --diffparent a.vmdk --format VMDK >/dev/null 2>&1
	for f in b a base; do VBoxManage closemedium $f.vmdk; done
	[ -z "$(VBoxManage list hdds)" ]
	VBoxManage modifymedium b.vmdk --description "the top" >/dev/null
	[ "$(VBoxManage list hdds | grep -c ^UUID)" = 3 ]
	[ "$(field a.vmdk "Parent UUID")" = "$base" ]
	[ "$(field b.vmdk Description)" = "the top" ]
}

@test "clonemedium makes every format, and the data is the same" {
	filled a.vdi VDI
	for f in VDI VMDK VHD QCOW2 RAW; do
		vbm clonemedium disk a.vdi "clone-$f" --format $f
		succeeds
		[[ $output =~ ^Clone\ medium\ created\ in\ format\ \'$f\'\.\ UUID:\ [0-9a-f-]{36}$ ]]
		[[ $stderr == 0%...10%*100% ]]
		file=$(echo clone-$f.*)
		[ "$(field "$file" "Storage format")" = $f ]
		qemu-img compare -q data.raw "$file"
	done
	for v in Fixed Split2G Stream; do
		VBoxManage clonemedium a.vdi $v.vmdk --format VMDK --variant $v >/dev/null 2>&1
		qemu-img compare -q data.raw $v.vmdk
		same $v.vmdk
	done
	[ "$(field Stream.vmdk "Format variant")" = "dynamic streamOptimized" ]
	[ "$(field Split2G.vmdk "Format variant")" = "dynamic split2G" ]
	vbm clonehd a.vdi clone-VDI.vdi
	fails_with 1 VERR_ALREADY_EXISTS
	vbm clonemedium missing.vdi b.vdi
	fails_with 1 VERR_FILE_NOT_FOUND
	vbm clonemedium a.vdi b.vdi --format VHDX
	fails_with 1 VHDX
}

@test "clonemedium --existing keeps the target's UUID, path and format" {
	filled a.vdi VDI
	uuid=$(hd b.vmdk 3 --format VMDK)
	vbm clonemedium a.vdi b.vmdk --existing
	succeeds
	[[ $output == *"$uuid" ]]
	[ "$(field b.vmdk UUID)" = "$uuid" ]
	[ "$(field b.vmdk Capacity)" = "6 MBytes" ]
	qemu-img compare -q data.raw b.vmdk
	[ -z "$(ls -d .lodge-* 2>/dev/null)" ]
}

@test "a clone of a chain is one image" {
	filled a.vdi VDI
	VBoxManage createmedium --filename d.qcow2 --diffparent a.vdi --format QCOW2 >/dev/null 2>&1
	same d.qcow2
	VBoxManage clonemedium d.qcow2 e.vdi >/dev/null 2>&1 || VBoxManage clonemedium d.qcow2 e.vdi --format VDI >/dev/null
	[ "$(field e.vdi "Parent UUID")" = base ]
}

@test "convertfromraw reads files and stdin, with a UUID on request" {
	filled a.vdi VDI
	qemu-img compare -q data.raw a.vdi
	vbm convertfromraw data.raw b.vdi --uuid 11111111-2222-4333-8444-555555555555 --variant Fixed
	says ""
	[[ $stderr == 'Converting from raw image file="data.raw" to file="b.vdi"...'*'Creating fixed image with size 6291456 bytes (6MB)...' ]]
	[ "$(field b.vdi UUID)" = 11111111-2222-4333-8444-555555555555 ]
	[ "$(field b.vdi "Format variant")" = "fixed default" ]
	for f in VMDK QCOW2 VHD; do
		cat data.raw | VBoxManage convertfromraw stdin c.$f 6291456 --format $f 2>/dev/null
		qemu-img compare -q data.raw c.$f
	done
	run --separate-stderr VBoxManage convertdd stdin d.vdi < data.raw
	fails_with 1 size
	vbm convertfromraw missing.raw e.vdi
	fails_with 1 missing.raw
	[ ! -e e.vdi ]
	vbm convertfromraw data.raw a.vdi
	fails_with 1 VERR_ALREADY_EXISTS
}

@test "modifymedium resizes, and never cuts data off" {
	filled a.vmdk VMDK
	uuid=$(field a.vmdk UUID)
	VBoxManage modifymedium a.vmdk --resize 30 2>/dev/null
	[ "$(field a.vmdk Capacity)" = "30 MBytes" ]
	[ "$(field a.vmdk UUID)" = "$uuid" ]
	truncate -s 30M data.raw
	qemu-img compare -q data.raw a.vmdk
	vbm modifymedium a.vmdk --resize 20
	fails_with 1 "cannot be resized"
	for f in VDI VHD QCOW2 RAW; do
		filled a.$f $f
		vbm modifymedium disk a.$f --resize 20
		[[ $stderr == 0%*100% ]]
		succeeds
		[ "$(field a.$f Capacity)" = "20 MBytes" ]
		truncate -s 20M data.raw
		qemu-img compare -q data.raw a.$f
		VBoxManage modifyhd a.$f --resizebyte $((10 << 20)) 2>/dev/null
		[ "$(field a.$f Capacity)" = "10 MBytes" ]
		truncate -s 10M data.raw
		qemu-img compare -q data.raw a.$f
		vbm modifymedium a.$f --resize 2
		fails_with 1 "data behind the new end"
		[ "$(field a.$f Capacity)" = "10 MBytes" ]
		qemu-img compare -q data.raw a.$f
	done
}

@test "modifymedium --compact gives back what is zero" {
	for f in VDI VHD QCOW2 VMDK; do
		truncate -s 40M full.raw
		dd if=/dev/urandom of=full.raw bs=1M count=40 conv=notrunc status=none
		VBoxManage convertfromraw full.raw a.$f --format $f 2>/dev/null
		full=$(stat -c %b a.$f)
		case $f in
		VDI) qemu-io -f vdi -c 'write -z 0 30M' a.$f >/dev/null ;;
		VHD) qemu-io -f vpc -c 'write -z 0 30M' a.$f >/dev/null ;;
		VMDK) qemu-io -f vmdk -c 'write -P 0 0 30M' a.$f >/dev/null ;;
		QCOW2) qemu-io -f qcow2 -c 'write -P 0 0 30M' a.$f >/dev/null ;;
		esac
		dd if=/dev/zero of=full.raw bs=1M count=30 conv=notrunc status=none
		vbm modifymedium a.$f --compact
		succeeds
		[ "$(stat -c %b a.$f)" -lt $((full / 2)) ]
		[ "$(stat -c %s a.$f)" -lt $((16 << 20)) ]
		qemu-img compare -q full.raw a.$f
	done
}

@test "modifymedium moves an image with all its files, and its children find it" {
	filled a.vmdk VMDK
	VBoxManage createmedium --filename d.vmdk --diffparent a.vmdk --format VMDK >/dev/null 2>&1
	mkdir there
	vbm modifymedium a.vmdk --move there/
	says "Move medium with UUID $(field there/a.vmdk UUID) finished"
	[ ! -e a.vmdk ]
	same d.vmdk
	vbm modifymedium d.vmdk --move there/sub/e.vmdk
	succeeds
	same there/sub/e.vmdk
	VBoxManage createmedium --filename s.vmdk --size 3000 --format VMDK --variant Split2G >/dev/null 2>&1
	VBoxManage modifymedium s.vmdk --move there >/dev/null 2>&1
	[ -z "$(ls s*.vmdk 2>/dev/null)" ]
	[ -f there/s-s001.vmdk ] && [ -f there/s-s002.vmdk ] && [ -f there/s.vmdk ]
	mv there/a.vmdk b.vmdk
	vbm modifymedium there/a.vmdk --setlocation b.vmdk
	succeeds
	same there/sub/e.vmdk
	hd x.vdi 5
	vbm modifymedium x.vdi --move b.vmdk
	fails_with 1 VERR_ALREADY_EXISTS
}

@test "types, properties, descriptions and autoreset are kept and shown" {
	hd a.vdi 5
	for t in Immutable multiattach WriteThrough readonly normal; do
		VBoxManage modifymedium disk a.vdi --type $t
		[ "$(field a.vdi Type)" = "${t,,} (base)" ]
	done
	vbm modifymedium a.vdi --type shareable
	fails_with 1 dynamic
	vbm modifymedium a.vdi --type odd
	fails_with 2 "Invalid medium type 'odd'"
	VBoxManage modifymedium a.vdi --property owner=me
	[ "$(VBoxManage mediumproperty disk get a.vdi owner)" = owner=me ]
	VBoxManage mediumproperty set a.vdi owner you
	[ "$(field a.vdi Property)" = owner=you ]
	VBoxManage mediumproperty delete a.vdi owner
	vbm mediumproperty get a.vdi owner
	fails_with 1 owner
	vbm modifymedium a.vdi --autoreset on
	fails_with 1 "not a differencing medium"
	VBoxManage createmedium --filename d.vdi --diffparent a.vdi >/dev/null 2>&1
	VBoxManage modifymedium d.vdi --autoreset on
	[ "$(field d.vdi Auto-Reset)" = on ]
	vbm modifymedium d.vdi --type immutable
	fails_with 1 differencing
	vbm modifymedium a.vdi
	fails_with 2 "No operation"
}

@test "encryptmedium encrypts, changes the password and decrypts" {
	echo secret >p1
	echo other >p2
	for f in VDI VMDK QCOW2; do
		filled a.$f $f
		uuid=$(field a.$f UUID)
		vbm encryptmedium a.$f --newpassword p1 --newpasswordid web1 --cipher AES-XTS256-PLAIN64
		succeeds
		[[ $stderr == 0%*100% ]]
		[ "$(field a.$f Encryption)" = enabled ]
		[ "$(field a.$f Cipher)" = AES-XTS256-PLAIN64 ]
		[ "$(field a.$f "Password ID")" = web1 ]
		run qemu-img compare -q data.raw a.$f
		[ "$status" -eq 1 ]
		[ "$(VBoxManage checkmediumpwd a.$f p1)" = "The given password is correct" ]
		vbm checkmediumpwd a.$f p2
		fails_with 1 "incorrect"
		vbm clonemedium a.$f b.vdi
		fails_with 1 encrypted
		VBoxManage encryptmedium a.$f --oldpassword p1 --newpassword p2 --newpasswordid web2 2>/dev/null
		[ "$(echo other | VBoxManage checkmediumpwd a.$f -)" = "The given password is correct" ]
		vbm encryptmedium a.$f --oldpassword p1
		fails_with 1 "incorrect"
		VBoxManage encryptmedium a.$f --oldpassword p2 2>/dev/null
		[ "$(field a.$f Encryption)" = disabled ]
		qemu-img compare -q data.raw a.$f
		[ "$f" = QCOW2 ] || [ "$(field a.$f UUID)" = "$uuid" ]
	done
	filled a.vhd VHD
	vbm encryptmedium a.vhd --newpassword p1 --newpasswordid x
	fails_with 1 "cannot be encrypted"
}

@test "an encrypted disk is cloned, compacted and resized with its password, and stays encrypted" {
	echo secret >p1
	echo other >p2
	for f in VDI VMDK QCOW2; do
		filled a.$f $f
		VBoxManage encryptmedium a.$f --newpassword p1 --newpasswordid web1 2>/dev/null
		vbm clonemedium a.$f b.vdi --password p2
		fails_with 1 incorrect
		[ ! -e b.vdi ]
		for to in VDI VMDK QCOW2; do
			vbm clonemedium a.$f b.$to --format $to --password p1
			succeeds
			[ "$(field b.$to Encryption)" = enabled ]
			[ "$(field b.$to "Password ID")" = web1 ]
			VBoxManage encryptmedium b.$to --oldpassword p1 2>/dev/null
			qemu-img compare -q data.raw b.$to
			VBoxManage closemedium b.$to --delete 2>/dev/null
		done
		vbm clonemedium a.$f b.vhd --format VHD --password p1
		fails_with 1 "cannot be: clone it to VDI"
		vbm modifymedium a.$f --compact
		fails_with 1 "its password is needed"
		echo secret | VBoxManage modifymedium a.$f --compact --password - 2>/dev/null
		VBoxManage modifymedium a.$f --resize 128 --password p1 2>/dev/null
		VBoxManage encryptmedium a.$f --oldpassword p1 2>/dev/null
		truncate -s 128M data.raw
		qemu-img compare -q data.raw a.$f
		rm data.raw
	done
}

@test "a machine with an encrypted disk is cloned with it, without the password" {
	echo secret >p1
	for f in VDI VMDK QCOW2; do
		filled a.$f $f
		VBoxManage encryptmedium a.$f --newpassword p1 --newpasswordid web1 2>/dev/null
		make_vm m$f
		VBoxManage storagectl m$f --name SATA --add sata
		VBoxManage storageattach m$f --storagectl SATA --port 0 --type hdd --medium a.$f
		VBoxManage clonevm m$f --name c$f --register >/dev/null 2>&1
		copy=$(mr c$f SATA-0-0)
		[ "$(field "$copy" UUID)" != "$(field a.$f UUID)" ]
		[ "$(field "$copy" "Password ID")" = web1 ]
		VBoxManage encryptmedium "$copy" --oldpassword p1 2>/dev/null
		qemu-img compare -q data.raw "$copy"
	done
}

@test "internalcommands sethduuid gives a copied image another UUID" {
	uuid=$(hd a.vdi 5)
	cp a.vdi b.vdi
	vbm modifymedium b.vdi --description copy
	fails_with 1 "already exists"
	vbm internalcommands sethduuid b.vdi
	succeeds
	[[ $output =~ ^UUID\ changed\ to:\ [0-9a-f-]{36}$ ]]
	VBoxManage modifymedium b.vdi --description copy >/dev/null
	[ "$(field a.vdi UUID)" = "$uuid" ]
}

@test "Ctrl-C takes back what was begun" {
	truncate -s 3G big.raw
	dd if=/dev/urandom of=big.raw bs=1M count=400 conv=notrunc status=none
	VBoxManage convertfromraw big.raw big.vdi 2>/dev/null &
	sleep 0.05
	kill -INT $! 2>/dev/null || true
	wait $! && skip "it was done before the signal came"
	[ ! -e big.vdi ]
	[ -z "$(ls "$LODGE_HOME"/run/media)" ]
}

@test "Ctrl-C in the middle of any long work on a disk leaves it as it was, and nothing beside it" {
	echo secret >p1
	truncate -s 1G data.raw
	dd if=/dev/urandom of=data.raw bs=1M count=200 conv=notrunc status=none
	VBoxManage convertfromraw data.raw a.vdi 2>/dev/null
	VBoxManage modifymedium a.vdi --description x >/dev/null
	VBoxManage createvm --name web1 --ostype Debian_64 --register >/dev/null
	VBoxManage storagectl web1 --name SATA --add sata
	VBoxManage storageattach web1 --storagectl SATA --port 0 --device 0 --type hdd --medium a.vdi
	cut=0
	for what in "clonemedium a.vdi b.vdi" "clonevm web1 --name c --register" "export web1 -o w.ova" "detach" \
		"modifymedium a.vdi --compact" "encryptmedium a.vdi --newpassword p1 --newpasswordid k"; do
		if [ "$what" = detach ]; then
			VBoxManage storageattach web1 --storagectl SATA --port 0 --device 0 --medium none
			continue
		fi
		for after in 0.03 0.06 0.12; do
			# shellcheck disable=SC2086
			code=0 && timeout --preserve-status -s INT $after VBoxManage $what >said 2>&1 || code=$?
			if [ "$code" = 0 ]; then # it was faster
				VBoxManage closemedium disk b.vdi --delete >/dev/null 2>&1 || true
				VBoxManage unregistervm c --delete >/dev/null 2>&1 || true
				rm -f w.ova
				break
			fi
			cut=$((cut + 1))
			[ ! -e b.vdi ] && [ ! -e w.ova ] && [ ! -e "$HOME/VirtualBox VMs/c" ] || { echo "$what, $after: $code"; cat said; ls -R; false; }
			[ -z "$(ls -d .lodge-* "$LODGE_HOME"/run/media/* 2>/dev/null)" ]
			run VBoxManage list vms
			[ "$(grep -c . <<<"$output")" = 1 ]
			[ "$(field a.vdi Encryption)" = disabled ]
			qemu-img compare -q data.raw a.vdi
		done
	done
	echo "$cut times in the middle"
	[ "$cut" -ge 3 ]
}

@test "what a killed clone left is removed by the next command, which says so" {
	truncate -s 3G big.raw
	dd if=/dev/urandom of=big.raw bs=1M count=400 conv=notrunc status=none
	VBoxManage convertfromraw big.raw clone.vmdk --format VMDK --variant Split2G 2>/dev/null &
	for _ in $(seq 200); do
		[ ! -e clone.vmdk ] || break
		sleep 0.01
	done
	kill -KILL $! 2>/dev/null || true
	wait $! && skip "it was done before it was killed"
	[ -e clone.vmdk ]
	vbm list hdds
	[[ $stderr == *"clone.vmdk"*"removed"* ]]
	[ "$(echo clone*)" = "clone*" ]
	vbm list hdds
	[ -z "$stderr" ]
}

@test "an immutable disk gives each machine a differencing image, a shareable one goes to several" {
	base=$(hd a.vdi 5)
	VBoxManage modifymedium a.vdi --type immutable
	for vm in web1 web2; do
		make_vm $vm
		VBoxManage storagectl $vm --name SATA --add sata
	done
	VBoxManage storageattach web1 --storagectl SATA --port 0 --type hdd --medium a.vdi
	diff=$(mr web1 SATA-ImageUUID-0-0)
	[ "$diff" != "$base" ]
	[ "$(field "$diff" "Parent UUID")" = "$base" ]
	[ "$(field "$diff" Auto-Reset)" = on ]
	VBoxManage storageattach web1 --storagectl SATA --port 0 --medium none
	VBoxManage closemedium "$diff" --delete 2>/dev/null
	VBoxManage modifymedium a.vdi --type multiattach
	for vm in web1 web2; do
		VBoxManage storageattach $vm --storagectl SATA --port 0 --type hdd --medium a.vdi
		[ "$(field "$(mr $vm SATA-ImageUUID-0-0)" Auto-Reset)" = off ]
	done
	[ "$(VBoxManage showmediuminfo a.vdi | grep -c "$(mr web1 SATA-ImageUUID-0-0)\|$(mr web2 SATA-ImageUUID-0-0)")" = 2 ]
	VBoxManage createmedium --filename s.vdi --size 5 --variant Fixed >/dev/null 2>&1
	VBoxManage modifymedium s.vdi --type shareable
	for vm in web1 web2; do
		VBoxManage storageattach $vm --storagectl SATA --port 1 --type hdd --medium s.vdi
		[ "$(mr $vm SATA-1-0)" = "$HOME/s.vdi" ]
	done
	VBoxManage createmedium --filename r.vdi --size 5 >/dev/null 2>&1
	VBoxManage modifymedium r.vdi --type readonly
	for vm in web1 web2; do VBoxManage storageattach $vm --storagectl SATA --port 2 --type hdd --medium r.vdi; done
	VBoxManage modifymedium "$(hd w.vdi 5)" --type writethrough
	VBoxManage storageattach web1 --storagectl SATA --port 3 --type hdd --medium w.vdi
	VBoxManage snapshot web1 take one >/dev/null 2>&1
	[ "$(mr web1 SATA-1-0)" = "$HOME/s.vdi" ]
	[ "$(mr web1 SATA-2-0)" = "$HOME/r.vdi" ]
	[ "$(mr web1 SATA-3-0)" = "$HOME/w.vdi" ]
	[[ $(mr web1 SATA-0-0) == */Snapshots/* ]]
}

@test "a machine with an encrypted disk waits for its password" {
	needs_machines
	truncate -s 8M data.raw
	printf '\353\376' | dd of=data.raw conv=notrunc status=none
	printf '\125\252' | dd of=data.raw bs=1 seek=510 conv=notrunc status=none
	VBoxManage convertfromraw data.raw a.vdi 2>/dev/null
	echo secret >p1
	echo wrong >p2
	VBoxManage encryptmedium a.vdi --newpassword p1 --newpasswordid key1 2>/dev/null
	make_vm web1
	VBoxManage modifyvm web1 --memory 64
	VBoxManage storagectl web1 --name SATA --add sata
	VBoxManage storageattach web1 --storagectl SATA --port 0 --type hdd --medium a.vdi
	VBoxManage startvm web1 --type headless >/dev/null
	for _ in $(seq 100); do
		[ "$(mr web1 VMState)" != paused ] || break
		sleep 0.2
	done
	[ "$(mr web1 VMState)" = paused ]
	vbm controlvm web1 addencpassword nokey p1
	fails_with 1 "nokey"
	vbm controlvm web1 addencpassword key1 p2
	fails_with 1 "VBOX_E_PASSWORD_INCORRECT"
	VBoxManage controlvm web1 addencpassword key1 p1
	for _ in $(seq 100); do
		[ "$(mr web1 VMState)" != running ] || break
		sleep 0.2
	done
	[ "$(mr web1 VMState)" = running ]
}

@test "killed at any moment, work on a disk leaves what it held" {
	echo secret >p1
	truncate -s 64M data.raw
	dd if=/dev/urandom of=data.raw bs=1M count=40 conv=notrunc status=none
	for f in VDI QCOW2 VHD; do
		VBoxManage convertfromraw data.raw a.$f --format $f 2>/dev/null
		VBoxManage modifymedium a.$f --description x >/dev/null
		for i in 1 2 3 4; do
			for what in "modifymedium a.$f --compact" "modifymedium a.$f --resize $((64 + RANDOM % 100))" \
				"clonemedium b.$f a.$f --existing" "encryptmedium a.$f --newpassword p1 --newpasswordid k"; do
				[ -e b.$f ] || VBoxManage clonemedium a.$f b.$f --format $f >/dev/null 2>&1
				# shellcheck disable=SC2086
				VBoxManage $what >/dev/null 2>&1 &
				sleep 0.0$((RANDOM % 9))
				kill -KILL $! 2>/dev/null || true
				wait $! 2>/dev/null || true
				VBoxManage list hdds >/dev/null 2>&1
				[ -z "$(ls -d .lodge-* 2>/dev/null)" ]
				if [ "$(field a.$f Encryption)" = enabled ]; then
					VBoxManage encryptmedium a.$f --oldpassword p1 2>/dev/null
				fi
				# What was put behind the end by a resize is zero.
				qemu-img compare -q data.raw a.$f
			done
		done
		VBoxManage closemedium b.$f --delete 2>/dev/null
	done
}
