#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
load common

hd() { # FILE MB
	VBoxManage createmedium disk --filename "$1" --size "$2" >/dev/null 2>&1
}

@test "createhd prints the UUID on stdout and progress on stderr" {
	vbm createhd --filename a.vdi --size 20000
	succeeds
	[[ $output =~ ^Medium\ created\.\ UUID:\ [0-9a-f-]{36}$ ]]
	[ "$stderr" = "0%...10%...20%...30%...40%...50%...60%...70%...80%...90%...100%" ]
	uuid=${output#Medium created. UUID: }
	vbm list hdds
	says "UUID:           $uuid
Parent UUID:    base
State:          created
Type:           normal (base)
Location:       $HOME/a.vdi
Storage format: VDI
Capacity:       20000 MBytes
Encryption:     disabled"
	vbm showmediuminfo disk "$uuid"
	succeeds
	has_line "Format variant: dynamic default"
	vbm showmediuminfo a.vdi
	has_line "UUID:           $uuid"
}

@test "createmedium adds the suffix, makes directories and knows raw and fixed images" {
	hd sub/dir/a 5
	[ -f sub/dir/a.vdi ]
	VBoxManage createmedium --filename b --sizebyte 1048576 --format raw >/dev/null 2>&1
	[ "$(stat -c %s b.img)" = 1048576 ]
	VBoxManage createmedium --filename c.vdi --size 3 --variant Fixed >/dev/null 2>&1
	[ "$(stat -c %s c.vdi)" -ge $((3 << 20)) ]
	vbm showmediuminfo c.vdi
	has_line "Format variant: fixed default"
}

@test "disks of other formats are created, shown, attached, and keep their UUID" {
	make_vm web1
	VBoxManage storagectl web1 --name SATA --add sata
	for f in QCOW2 VMDK VHD; do
		vbm createhd --filename "$f" --size 50 --format "$f"
		[ "$status" -eq 0 ]
		uuid=${output##*: }
		file=$PWD/$f.${f,,}
		VBoxManage storageattach web1 --storagectl SATA --port 0 --type hdd --medium "$file"
		vbm list hdds
		has_line "UUID:           $uuid"
		has_line "Storage format: $f"
		has_line "Capacity:       50 MBytes"
		vbm showmediuminfo disk "$file"
		has_line "UUID:           $uuid"
		VBoxManage storageattach web1 --storagectl SATA --port 0 --medium none
		VBoxManage closemedium disk "$uuid" --delete 2>/dev/null
		[ ! -e "$file" ]
	done
}

@test "a VMDK of several files is created and deleted as one" {
	VBoxManage createmedium --filename b --size 3000 --format VMDK --variant Split2G >/dev/null 2>&1
	VBoxManage createmedium --filename c --size 3 --format VMDK --variant Fixed >/dev/null 2>&1
	[ "$(echo *.vmdk)" = "b-s001.vmdk b-s002.vmdk b.vmdk c-flat.vmdk c.vmdk" ]
	vbm showmediuminfo b.vmdk
	has_line "Capacity:       3000 MBytes"
	VBoxManage closemedium b.vmdk --delete 2>/dev/null
	[ "$(echo *.vmdk)" = "c-flat.vmdk c.vmdk" ]
	vbm createmedium --filename d --size 3 --variant Split2G
	fails_with 1 "2 GB"
}

@test "createmedium never overwrites" {
	hd a.vdi 5
	sum=$(sha256sum a.vdi)
	vbm createmedium --filename a.vdi --size 9
	fails_with 1 "(VERR_ALREADY_EXISTS)"
	[[ $stderr == "0%...VBOX_E_FILE_ERROR"*"Failed to create medium"*"VBOX_E_FILE_ERROR (0x80bb0004)"* ]]
	[ "$sum" = "$(sha256sum a.vdi)" ]
}

@test "createmedium refuses what cannot be" {
	vbm createmedium --size 5
	fails_with 2 "Parameter --filename is required"
	vbm createmedium --filename a.vdi
	fails_with 2 "Parameter --size is required"
	vbm createmedium --filename a.vdi --size five
	fails_with 2 "five"
	vbm createmedium --filename a.vhdx --size 5 --format VHDX
	fails_with 1 "VHDX"
	vbm createmedium --filename /proc/a.vdi --size 5
	fails_with 1 "/proc/a.vdi"
	vbm list hdds
	says ""
}

@test "the whole of a storage set-up is shown" {
	make_vm web1
	make_iso d.iso
	hd a.vdi 5
	VBoxManage storagectl web1 --name SATA --add SATA --controller intelahci --portcount 2
	VBoxManage storagectl web1 --name "IDE Controller" --add ide
	vbm storageattach web1 --storagectl SATA --port 0 --device 0 --type hdd --medium a.vdi --nonrotational on
	says ""
	[ -z "$stderr" ]
	VBoxManage storageattach web1 --storagectl "IDE Controller" --port 1 --device 0 --type dvddrive --medium d.iso
	VBoxManage storageattach web1 --storagectl "IDE Controller" --port 0 --device 0 --type dvddrive --medium emptydrive
	vbm showvminfo web1 --machinereadable
	for line in 'storagecontrollername0="SATA"' 'storagecontrollertype0="IntelAhci"' \
		'storagecontrollermaxportcount0="30"' 'storagecontrollerportcount0="2"' \
		'storagecontrollertype1="PIIX4"' "\"SATA-0-0\"=\"$HOME/a.vdi\"" '"SATA-nonrotational-0-0"="on"' \
		'"SATA-hot-pluggable-0-0"="off"' '"SATA-1-0"="none"' "\"IDE Controller-1-0\"=\"$HOME/d.iso\"" \
		'"IDE Controller-tempeject-1-0"="off"' '"IDE Controller-IsEjected-1-0"="off"' \
		'"IDE Controller-0-0"="emptydrive"' '"IDE Controller-0-1"="none"'; do
		has_line "$line"
	done
	vbm list dvds
	has_line "Location:       $HOME/d.iso"
	has_line "Type:           readonly"
	vbm list -l hdds
	has_line "In use by VMs:  web1 (UUID: $(mr web1 UUID))"
}

@test "an ISO keeps its UUID" {
	make_vm web1
	make_iso d.iso
	VBoxManage storagectl web1 --name IDE --add ide
	VBoxManage storageattach web1 --storagectl IDE --port 1 --device 0 --type dvddrive --medium d.iso
	uuid=$(mr web1 IDE-ImageUUID-1-0)
	VBoxManage storageattach web1 --storagectl IDE --port 1 --device 0 --type dvddrive --medium none
	VBoxManage storageattach web1 --storagectl IDE --port 1 --device 0 --type dvddrive --medium "$uuid"
	[ "$(mr web1 IDE-ImageUUID-1-0)" = "$uuid" ]
}

@test "a port behind the last one makes the controller larger" {
	make_vm web1
	hd a.vdi 5
	VBoxManage storagectl web1 --name SATA --add sata --portcount 1
	VBoxManage storageattach web1 --storagectl SATA --port 4 --type hdd --medium a.vdi
	[ "$(mr web1 storagecontrollerportcount0)" = 5 ]
}

@test "errors of storage are VirtualBox's" {
	make_vm web1
	hd a.vdi 5
	vbm storageattach web1 --storagectl SATA --port 0 --type hdd --medium a.vdi
	fails_with 1 "Could not find a storage controller named 'SATA'"
	[[ $stderr == *"VBOX_E_OBJECT_NOT_FOUND"* ]]
	VBoxManage storagectl web1 --name SATA --add sata
	vbm storagectl web1 --name SATA --add sata
	fails_with 1 "Storage controller named 'SATA' already exists"
	[[ $stderr == *"VBOX_E_OBJECT_IN_USE"* ]]
	vbm storageattach web1 --storagectl SATA --port 1 --device 0 --medium none
	fails_with 1 "No storage device attached to device slot 0 on port 1 of controller 'SATA'"
	vbm storageattach web1 --storagectl SATA --port 0 --type hdd --medium missing.vdi
	fails_with 1 "Could not find file for the medium '$HOME/missing.vdi' (VERR_FILE_NOT_FOUND)"
	[[ $stderr == *"VBOX_E_FILE_ERROR (0x80bb0004), component MediumWrap, interface IMedium"* ]]
	VBoxManage storageattach web1 --storagectl SATA --port 0 --type hdd --medium a.vdi
	vbm storageattach web1 --storagectl SATA --port 3 --type hdd --medium a.vdi
	fails_with 1 "Medium '$HOME/a.vdi' is already attached to port 0, device 0 of controller 'SATA' of this virtual machine"
	vbm storageattach web1 --storagectl SATA --type hdd --medium a.vdi
	fails_with 2 "Port not specified"
	vbm storageattach web1 --storagectl SATA --port 30 --type hdd --medium a.vdi
	fails_with 1 "out of range"
	vbm storageattach web1 --storagectl SATA --port 1 --type fdd --medium a.vdi
	fails_with 1 "floppy"
	vbm storagectl web1 --name B --add frob
	fails_with 1 "Invalid storage bus 'frob'"
	vbm storagectl web1 --name B --add scsi --controller BusLogic
	fails_with 1 "VBOX_E_NOT_SUPPORTED"
	vbm storagectl web1 --name B --add ide --controller NVMe
	fails_with 1 "cannot be a 'NVMe'"
	VBoxManage storagectl web1 --name IDE --add ide
	hd b.vdi 5
	vbm storageattach web1 --storagectl IDE --port 0 --device 0 --type hdd --medium b.vdi --hotpluggable on
	fails_with 1 "Controller 'IDE' does not support changing the hot-pluggable device flag"
	VBoxManage storageattach web1 --storagectl IDE --port 1 --device 0 --type dvddrive --medium emptydrive
	vbm storageattach web1 --storagectl IDE --port 1 --device 0 --nonrotational on
	fails_with 1 "Setting the non-rotational medium flag rejected as the device attached to device slot 0 on port 1"
	VBoxManage storagectl web1 --name IDE --remove
	vbm storagectl web1 --name B --remove
	fails_with 1 "Could not find a storage controller named 'B'"
}

@test "a disk of another machine cannot be attached" {
	make_vm web1
	make_vm web2
	hd a.vdi 5
	for vm in web1 web2; do VBoxManage storagectl $vm --name SATA --add sata; done
	VBoxManage storageattach web1 --storagectl SATA --port 0 --type hdd --medium a.vdi
	vbm storageattach web2 --storagectl SATA --port 0 --type hdd --medium a.vdi
	fails_with 1 "VBOX_E_OBJECT_IN_USE"
}

@test "a file that is not an optical disc is refused as one, and a truncated one" {
	make_vm web1
	VBoxManage storagectl web1 --name IDE --add ide
	truncate -s 1M junk.iso
	: >empty.iso
	make_iso short.iso
	printf '\0\020\0\0' | dd of=short.iso bs=1 seek=$((32768 + 80)) conv=notrunc status=none
	for iso in junk.iso empty.iso short.iso; do
		vbm storageattach web1 --storagectl IDE --port 1 --device 0 --type dvddrive --medium $iso
		[ "$iso" = junk.iso ] || fails_with 1 "$iso"
	done
	vbm storageattach web1 --storagectl IDE --port 1 --device 0 --type dvddrive --medium .
	fails_with 1 "directory"
}

@test "closemedium keeps the file, --delete removes it, in use it refuses" {
	make_vm web1
	hd a.vdi 5
	hd b.vdi 5
	VBoxManage storagectl web1 --name SATA --add sata
	VBoxManage storageattach web1 --storagectl SATA --port 0 --type hdd --medium a.vdi
	vbm closemedium disk a.vdi
	fails_with 1 "Medium '$HOME/a.vdi' cannot be closed because it is still attached to 1 virtual machines"
	vbm closemedium disk a.vdi --delete
	fails_with 1 "Cannot delete storage: medium '$HOME/a.vdi' is still attached to the following 1 virtual machine(s): $(mr web1 UUID)"
	[ -f a.vdi ]
	vbm closemedium disk b.vdi
	says ""
	[ -f b.vdi ]
	vbm closemedium b.vdi --delete
	says ""
	[[ $stderr == 0%*100% ]]
	[ ! -e b.vdi ]
	VBoxManage storageattach web1 --storagectl SATA --port 0 --medium none
	rm a.vdi
	vbm closemedium disk a.vdi --delete
	says ""
	vbm closemedium disk a.vdi
	fails_with 1 "VERR_FILE_NOT_FOUND"
	vbm closemedium disk 11111111-2222-4333-8444-555555555555
	fails_with 1 "Could not find an open hard disk with UUID {11111111-2222-4333-8444-555555555555}"
}

@test "a medium whose file is gone is inaccessible" {
	hd a.vdi 5
	rm a.vdi
	vbm list hdds
	has_line "State:          inaccessible"
}

@test "a controller can be renamed, changed and removed" {
	make_vm web1
	VBoxManage storagectl web1 --name SATA --add sata
	VBoxManage storagectl web1 --name SATA --rename Disks --portcount 4 --bootable off
	[ "$(mr web1 storagecontrollername0)" = Disks ]
	[ "$(mr web1 storagecontrollerportcount0)" = 4 ]
	[ "$(mr web1 storagecontrollerbootable0)" = off ]
	VBoxManage storagectl web1 --name Disks --remove
	[ -z "$(mr web1 storagecontrollername0)" ]
}

@test "every kind of controller is added, shown, and takes what belongs to it" {
	make_vm web1
	while read -r bus type ports; do
		VBoxManage storagectl web1 --name "$bus" --add "$bus"
		vbm showvminfo web1 --machinereadable
		n=$(sed -n "s/^storagecontrollername\\([0-9]*\\)=\"$bus\"$/\\1/p" <<<"$output")
		has_line "storagecontrollertype$n=\"$type\""
		has_line "storagecontrollerportcount$n=\"$ports\""
	done <<<'ide PIIX4 2
sata IntelAhci 30
scsi LsiLogic 16
sas LsiLogicSas 8
pcie NVMe 1
virtio-scsi VirtioSCSI 1
floppy I82078 1'
	hd a.vdi 5
	VBoxManage storageattach web1 --storagectl pcie --port 0 --type hdd --medium a.vdi
	vbm storageattach web1 --storagectl pcie --port 1 --type dvddrive --medium emptydrive
	fails_with 1 "A DVD drive cannot be attached to controller 'pcie'"
	vbm storageattach web1 --storagectl floppy --port 0 --device 0 --type hdd --medium a.vdi
	fails_with 1 "cannot be attached to controller 'floppy'"
	VBoxManage storageattach web1 --storagectl floppy --port 0 --device 0 --type fdd --medium emptydrive
	[ "$(mr web1 floppy-0-0)" = emptydrive ]
	VBoxManage storageattach web1 --storagectl floppy --port 0 --device 0 --medium none
	VBoxManage storagectl web1 --name floppy --remove
	VBoxManage storagectl web1 --name ide --controller PIIX3
	VBoxManage showvminfo web1 --machinereadable | grep -qx 'storagecontrollertype0="PIIX3"'
}

@test "a medium gets another UUID when it is attached" {
	make_vm web1
	hd a.vdi 5
	cp a.vdi b.vdi
	VBoxManage storagectl web1 --name SATA --add sata
	VBoxManage storageattach web1 --storagectl SATA --port 0 --type hdd --medium a.vdi
	VBoxManage storageattach web1 --storagectl SATA --port 1 --type hdd --medium b.vdi \
		--setuuid 5f0f4f3e-1111-2222-3333-444455556666
	[ "$(mr web1 SATA-ImageUUID-1-0)" = 5f0f4f3e-1111-2222-3333-444455556666 ]
	[ "$(mr web1 SATA-ImageUUID-0-0)" != 5f0f4f3e-1111-2222-3333-444455556666 ]
}

@test "bandwidth groups are added, changed, listed, used and removed" {
	make_vm web1
	hd a.vdi 5
	VBoxManage storagectl web1 --name SATA --add sata
	vbm bandwidthctl web1 list
	says "Bandwidth groups: <none>"
	VBoxManage bandwidthctl web1 add slow --type disk --limit 20M
	VBoxManage bandwidthctl web1 add net --type network --limit 10m
	vbm bandwidthctl web1 add slow --type network --limit 1
	fails_with 1 "Bandwidth group named 'slow' already exists"
	vbm bandwidthctl web1 list
	has_line "Name: 'slow', Type: Disk, Limit: 20 megabytes/sec"
	has_line "Name: 'net', Type: Network, Limit: 10 megabits/sec (1250000 bytes/sec)"
	vbm showvminfo web1
	has_line "Bandwidth groups:"
	has_line "Name: 'slow', Type: Disk, Limit: 20 megabytes/sec"
	[[ $output != *"Bandwidth groups:  <none>"* ]]
	vbm showvminfo web1 --machinereadable
	grep -qx 'BandwidthGroup[01]=slow,Disk,20971520' <<<"$output"
	VBoxManage bandwidthctl web1 set slow --limit 0
	vbm bandwidthctl web1 list --machinereadable
	grep -qx 'BandwidthGroup[01]=slow,Disk,0' <<<"$output"
	VBoxManage storageattach web1 --storagectl SATA --port 0 --type hdd --medium a.vdi --bandwidthgroup slow
	vbm storageattach web1 --storagectl SATA --port 0 --bandwidthgroup fast
	fails_with 1 "Could not find a bandwidth group named 'fast'"
	vbm bandwidthctl web1 remove slow
	fails_with 1 "The bandwidth group 'slow' is still in use"
	VBoxManage storagectl web1 --name SATA --rename S
	vbm bandwidthctl web1 remove slow
	fails_with 1 "The bandwidth group 'slow' is still in use"
	VBoxManage storageattach web1 --storagectl S --port 0 --bandwidthgroup none
	VBoxManage bandwidthctl web1 remove slow
	vbm bandwidthctl web1 remove slow
	fails_with 1 "Could not find a bandwidth group named 'slow'"
}
