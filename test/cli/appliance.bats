#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
load common

# A machine with a disk of 6 MiB, what is on it in data.raw, at port 1 of a SATA controller.
make_web() { # NAME
	[ -e data.raw ] || {
		truncate -s 6M data.raw
		dd if=/dev/urandom of=data.raw bs=64K count=10 conv=notrunc status=none
	}
	VBoxManage createvm --name "$1" --ostype Debian_64 --register >/dev/null
	VBoxManage convertfromraw data.raw "$1.vdi" 2>/dev/null
	VBoxManage storagectl "$1" --name 'SATA Controller' --add sata --portcount 2
	VBoxManage storagectl "$1" --name IDE --add ide
	VBoxManage storageattach "$1" --storagectl 'SATA Controller' --port 1 --device 0 --type hdd --medium "$1.vdi"
	VBoxManage storageattach "$1" --storagectl IDE --port 1 --device 0 --type dvddrive --medium emptydrive
}

# Nothing of an import or export that failed: no files, no directories, no notes.
nothing_left() { # PATH...
	local p
	for p in "$@"; do
		[ ! -e "$p" ] || { echo "$p is there"; return 1; }
	done
	[ -z "$(find . -name '.lodge-*' -o -name import-in-progress)" ]
	[ -z "$(ls "$LODGE_HOME/run/media" 2>/dev/null)" ]
}

# What a machine is, without what makes it another one.
portrait() { # MACHINE
	VBoxManage showvminfo "$1" --machinereadable |
		grep -vE '^(name|UUID|CfgFile|SnapFldr|LogFldr|hardwareuuid|BIOS NVRAM File|VMStateChangeTime)=' |
		sed -E "s/ImageUUID-(.*)=.*/ImageUUID-\1/; s|=\"/.*\.(vdi|vmdk)\"|=disk|; $2"
}

well_formed() { # FILE
	python3 -c 'import sys, xml.etree.ElementTree as t; t.parse(sys.argv[1])' "$1"
}

# An envelope as VMware's tools write it, for the disk $1 in the format whose URL is $2.
vmware_ovf() { # FILE [URL]
	cat <<OVF
<?xml version="1.0" encoding="UTF-8"?>
<Envelope vmw:buildId="build-1" xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:cim="http://schemas.dmtf.org/wbem/wscim/1/common"
 xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1" xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData"
 xmlns:vmw="http://www.vmware.com/schema/ovf" xmlns:vssd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData">
 <References><File ovf:href="$1" ovf:id="file1"${3:-}/></References>
 <DiskSection><Info>d</Info><Disk ovf:capacity="6" ovf:capacityAllocationUnits="byte * 2^20" ovf:diskId="vmdisk1" ovf:fileRef="file1"
  ovf:format="${2-http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized}" ovf:populatedSize="655360"/></DiskSection>
 <NetworkSection><Info>n</Info><Network ovf:name="VM Network"><Description>The VM Network</Description></Network></NetworkSection>
 <VirtualSystem ovf:id="photon">
  <Info>A virtual machine</Info><Name>photon/os</Name>
  <OperatingSystemSection ovf:id="1" vmw:osType="debian11_64Guest"><Info>os</Info></OperatingSystemSection>
  <VirtualHardwareSection><Info>hw</Info>
   <System><vssd:ElementName>Virtual Hardware Family</vssd:ElementName><vssd:InstanceID>0</vssd:InstanceID>
    <vssd:VirtualSystemType>vmx-11</vssd:VirtualSystemType></System>
   <Item><rasd:AllocationUnits>hertz * 10^6</rasd:AllocationUnits><rasd:InstanceID>1</rasd:InstanceID>
    <rasd:Reservation>0</rasd:Reservation><rasd:ResourceType>3</rasd:ResourceType><rasd:VirtualQuantity>2</rasd:VirtualQuantity></Item>
   <Item><rasd:AllocationUnits>byte * 2^30</rasd:AllocationUnits><rasd:InstanceID>2</rasd:InstanceID>
    <rasd:ResourceType>4</rasd:ResourceType><rasd:VirtualQuantity>2</rasd:VirtualQuantity></Item>
   <Item><rasd:Address>0</rasd:Address><rasd:InstanceID>3</rasd:InstanceID><rasd:ResourceSubType>VirtualSCSI</rasd:ResourceSubType>
    <rasd:ResourceType>6</rasd:ResourceType></Item>
   <Item ovf:required="false"><rasd:InstanceID>4</rasd:InstanceID><rasd:ResourceSubType>vmware.vmci</rasd:ResourceSubType>
    <rasd:ResourceType>1</rasd:ResourceType></Item>
   <Item><rasd:AddressOnParent>0</rasd:AddressOnParent><rasd:HostResource>ovf:/disk/vmdisk1</rasd:HostResource>
    <rasd:InstanceID>5</rasd:InstanceID><rasd:Parent>3</rasd:Parent><rasd:ResourceType>17</rasd:ResourceType></Item>
   <Item><rasd:AddressOnParent>7</rasd:AddressOnParent><rasd:Connection>VM Network</rasd:Connection><rasd:InstanceID>6</rasd:InstanceID>
    <rasd:ResourceSubType>VmxNet3</rasd:ResourceSubType><rasd:ResourceType>10</rasd:ResourceType></Item>
   ${4:-}
   <vmw:Config ovf:required="false" vmw:key="firmware" vmw:value="bios"/>
  </VirtualHardwareSection>
 </VirtualSystem>
</Envelope>
OVF
}

vmware_disk() {
	truncate -s 6M data.raw
	dd if=/dev/urandom of=data.raw bs=64K count=10 conv=notrunc status=none
	qemu-img convert -q -O vmdk -o subformat=streamOptimized data.raw photon.vmdk
}

holds_data() { # IMAGE
	qemu-img compare -q data.raw "$1"
}


@test "a machine comes back from its export as it was" {
	folder="$HOME/VirtualBox VMs"
	make_web web1
	VBoxManage modifyvm web1 --memory 512 --cpus 2 --nic2 intnet --intnet2 lab --nic3 null --nictype2 virtio \
		--natpf1 ssh,tcp,127.0.0.1,2222,,22 --natpf1 dns,udp,,5353,10.0.2.15,53 --description 'a <b> & "c"' --vram 32 \
		--uart1 0x3f8 4 --rtcuseutc on --boot1 disk --boot2 none --hpet on --cableconnected2 off --nicpromisc2 allow-all \
		--vrde on --biossystemtimeoffset -5000
	VBoxManage setextradata web1 key 'a "value"'
	VBoxManage guestproperty set web1 /a/b c
	for version in 09 10 20; do
		vbm export web1 -o box$version.ovf --manifest --ovf$version
		says "Successfully exported 1 machine(s)."
		[[ $stderr == 0%...10%*100% ]]
		well_formed box$version.ovf
		holds_data box$version-disk001.vmdk
		vbm import box$version.ovf --options keepallmacs --vsys 0 --vmname copy$version
		succeeds
		[ "${lines[-1]}" = "Successfully imported the appliance." ]
		[[ $stderr != *warning* ]]
		diff <(portrait web1) <(portrait copy$version)
		holds_data "$folder/copy$version/box$version-disk001.vmdk"
		[ "$(VBoxManage getextradata copy$version key)" = 'Value: a "value"' ]
		[ "$(VBoxManage guestproperty get copy$version /a/b)" = "Value: c" ]
	done
	nothing_left
}

@test "a dry run lists the units as VirtualBox does and makes nothing" {
	make_web web1
	VBoxManage modifyvm web1 --memory 512 --cpus 2
	VBoxManage export web1 -o box.ovf 2>/dev/null
	size=$(stat -c %s box-disk001.vmdk)
	vbm import -n box.ovf
	v="$HOME/VirtualBox VMs"
	says "Disks:
  vmdisk1	6291456	-1	http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized	box-disk001.vmdk	$size	-1	

Virtual system 0:
 0: Suggested OS type: \"Debian_64\"
    (change with \"--vsys 0 --ostype <type>\"; use \"list ostypes\" to list all possible values)
 1: Suggested VM name \"web1 1\"
    (change with \"--vsys 0 --vmname <name>\")
 2: Suggested VM group \"/\"
    (change with \"--vsys 0 --group <group>\")
 3: Suggested VM settings file name \"$v/web1 1/web1 1.vbox\"
    (change with \"--vsys 0 --settingsfile <filename>\")
 4: Suggested VM base folder \"$v\"
    (change with \"--vsys 0 --basefolder <path>\")
 5: Number of CPUs: 2
    (change with \"--vsys 0 --cpus <n>\")
 6: Guest memory: 512 MB
    (change with \"--vsys 0 --memory <MB>\")
 7: Network adapter: orig NAT, config 3, extra slot=0;type=NAT
 8: CD-ROM
    (disable with \"--vsys 0 --unit 8 --ignore\")
 9: SATA controller, type AHCI
    (disable with \"--vsys 0 --unit 9 --ignore\")
10: IDE controller, type PIIX4
    (disable with \"--vsys 0 --unit 10 --ignore\")
11: IDE controller, type PIIX4
    (disable with \"--vsys 0 --unit 11 --ignore\")
12: Hard disk image: source image=box-disk001.vmdk, target path=box-disk001.vmdk, controller=9;port=1
    (change target path with \"--vsys 0 --unit 12 --disk path\";
    change controller with \"--vsys 0 --unit 12 --controller <index>\";
    change controller port with \"--vsys 0 --unit 12 --port <n>\";
    disable with \"--vsys 0 --unit 12 --ignore\")"
	[ "$stderr" = "0%...10%...20%...30%...40%...50%...60%...70%...80%...90%...100%
Interpreting $HOME/box.ovf...
OK." ]
	[ "$(VBoxManage list vms | wc -l)" = 1 ]
	nothing_left "$v/web1 1"
}

@test "options of a system and its units say what is made" {
	make_web web1
	VBoxManage export web1 --output box.ovf 2>/dev/null
	VBoxManage unregistervm web1 --delete 2>/dev/null
	vbm import box.ovf --vsys 0 --vmname box_1 --vsys 0 --unit 12 --disk "$HOME/VirtualBox VMs/box_1/box-disk001.vmdk"
	succeeds
	has_line ' 1: VM name specified with --vmname: "box_1"'
	has_line "12: Hard disk image specified with --disk: source image=box-disk001.vmdk, target path=$HOME/VirtualBox VMs/box_1/box-disk001.vmdk, controller=9;port=1"
	[ "$(mr box_1 'SATA Controller-1-0')" = "$HOME/VirtualBox VMs/box_1/box-disk001.vmdk" ]
	vbm import box.ovf --options importtovdi --vsys 0 --vmname b2 --cpus 3 --memory 300 --ostype Ubuntu_64 --group /g \
		--basefolder "$HOME/else" --description other --unit 7 --ignore --unit 12 --controller 10 --port 1
	succeeds
	[ "$(mr b2 cpus) $(mr b2 memory) $(mr b2 nic1) $(mr b2 groups)" = "3 300 none /g" ]
	[ "$(mr b2 ostype) $(mr b2 description)" = "Ubuntu (64-bit) other" ]
	[ "$(mr b2 IDE-0-1)" = "$HOME/else/b2/box-disk001.vdi" ]
	vbm import box.ovf --vsys 0 --vmname b3 --unit 12 --ignore
	succeeds
	[ "$(mr b3 'SATA Controller-1-0')" = none ]
	vbm import box.ovf --vsys 0 --vmname b4 --settingsfile "$HOME/place/b4.vbox" --unit 12 --disk sub/
	succeeds
	[ "$(mr b4 CfgFile)" = "$HOME/place/b4.vbox" ]
	[ -e place/sub/box-disk001.vmdk ]
	for bad in "--vmname x" "--vsys 0 --ignore" "--vsys 0 --unit 1 --ignore" "--vsys 0 --unit 99 --ignore" "--vsys 1 --vmname x" \
		"--vsys 0 --unit 12 --port 40" "--vsys 0 --cpus 0" "--options nonsense" "--vsys 0 --unit 7 --disk x" "--nonsense"; do
		# shellcheck disable=SC2086
		vbm import box.ovf $bad
		[ "$status" -ne 0 ] || { echo "taken: $bad"; false; }
	done
	nothing_left
}

@test "MAC addresses are new, or kept, or not exported" {
	make_web web1
	VBoxManage modifyvm web1 --macaddress1 080027000001 --nic2 intnet --macaddress2 080027000002
	VBoxManage export web1 -o a.ovf 2>/dev/null
	VBoxManage export web1 -o b.ovf --options nomacs 2>/dev/null
	VBoxManage export web1 -o c.ovf --options nomacsbutnat 2>/dev/null
	grep -q 080027000002 a.ovf
	! grep -q 08002700000 b.ovf
	[ "$(grep -o 08002700000. c.ovf)" = 080027000001 ]
	VBoxManage import a.ovf --vsys 0 --vmname new >/dev/null 2>&1
	VBoxManage import a.ovf --vsys 0 --vmname all --options keepallmacs >/dev/null 2>&1
	VBoxManage import a.ovf --vsys 0 --vmname nat --options keepnatmacs >/dev/null 2>&1
	[ "$(mr new macaddress1)" != 080027000001 ]
	[ "$(mr all macaddress1) $(mr all macaddress2)" = "080027000001 080027000002" ]
	[ "$(mr nat macaddress1)" = 080027000001 ]
	[ "$(mr nat macaddress2)" != 080027000002 ]
}

@test "an OVA holds several machines, with what other tools expect in it" {
	make_web web1
	make_web web2
	vbm export web1 web2 -o both.ova --manifest --ovf20
	says "Successfully exported 2 machine(s)."
	[ "$(tar tf both.ova | tr '\n' ' ')" = "both.ovf both.mf both-disk001.vmdk both-disk002.vmdk " ]
	mkdir x && tar -C x -xf both.ova
	(cd x && sed 's/SHA256 (\(.*\))= \(.*\)/\2  \1/' both.mf | sha256sum -c --quiet)
	VBoxManage unregistervm web1 --delete 2>/dev/null
	VBoxManage unregistervm web2 --delete 2>/dev/null
	vbm import both.ova --vsys 1 --vmname second
	succeeds
	[ "$(VBoxManage list vms | cut -d' ' -f1 | sort | tr '\n' ' ')" = '"second" "web1" ' ]
	holds_data "VirtualBox VMs/second/both-disk002.vmdk"
	holds_data "VirtualBox VMs/web1/both-disk001.vmdk"
	nothing_left
}

@test "what hangs on a snapshot is exported with what it reads through to, discs on request" {
	make_web web1
	make_iso some.iso
	VBoxManage snapshot web1 take one >/dev/null 2>&1
	VBoxManage storageattach web1 --storagectl IDE --port 1 --device 0 --type dvddrive --medium some.iso
	VBoxManage export web1 -o a.ova 2>/dev/null
	VBoxManage export web1 -o b.ova --iso --product P --vendor V --version 1 --vsys 0 2>/dev/null && false
	VBoxManage export web1 -o b.ova --iso --vsys 0 --product P --vendor V --version 1 --vmname named --eula "Be nice" 2>/dev/null
	vbm import a.ova --vsys 0 --vmname a
	succeeds
	holds_data "VirtualBox VMs/a/a-disk001.vmdk"
	[ "$(mr a IDE-1-0)" = emptydrive ]
	vbm import b.ova
	fails_with 1 "until the license agreement"
	has_line ' 2: Product (ignored): P'
	[ -z "$(VBoxManage list vms | grep named)" ]
	vbm import b.ova --vsys 0 --eula accept
	succeeds
	[ "$(mr named IDE-1-0)" = "$HOME/VirtualBox VMs/named/b-disk002.iso" ]
	cmp some.iso "VirtualBox VMs/named/b-disk002.iso"
}

@test "VMware's appliances get the nearest hardware there is" {
	vmware_disk
	vmware_ovf photon.vmdk >photon.ovf
	vbm import photon.ovf
	succeeds
	has_line ' 0: Suggested OS type: "Debian_64"'
	has_line ' 6: Guest memory: 2048 MB'
	has_line ' 7: Network adapter: orig VM Network, config 6, extra slot=0;type=NAT'
	has_line ' 9: Hard disk image: source image=photon.vmdk, target path=photon.vmdk, controller=8;port=0'
	vm=photon_os
	[ "$(mr $vm cpus) $(mr $vm nic1) $(mr $vm nictype1)" = "2 nat virtio" ]
	[ "$(mr $vm storagecontrollertype0)" = LsiLogic ]
	holds_data "$(mr $vm 'SCSI Controller-0-0')"
	# What nobody can do without is refused by name, what is optional is not.
	item='<rasd:ElementName>TPM</rasd:ElementName><rasd:InstanceID>9</rasd:InstanceID><rasd:ResourceType>77</rasd:ResourceType></Item>'
	vmware_ovf photon.vmdk vmdk "" "<Item>$item" >tpm.ovf
	vbm import tpm.ovf
	fails_with 1 "'TPM' (ResourceType 77) is required"
	vmware_ovf photon.vmdk vmdk "" "<Item ovf:required=\"false\">$item" >tpm.ovf
	vbm import -n tpm.ovf
	succeeds
}

@test "disks of every format and compressed with gzip are taken" {
	vmware_disk
	n=0
	for f in vmdk qcow2 vdi vpc; do
		n=$((n + 1))
		qemu-img convert -q -O $f $([ $f != vpc ] || echo -o force_size=on) data.raw d.$f
		vmware_ovf d.$f "" >d.ovf
		vbm import d.ovf --vsys 0 --vmname m$n
		succeeds
		holds_data "$(mr m$n 'SCSI Controller-0-0')"
	done
	gzip -k photon.vmdk
	vmware_ovf photon.vmdk.gz vmdk ' ovf:compression="gzip"' >gz.ovf
	vbm import gz.ovf --vsys 0 --vmname gz
	succeeds
	holds_data "VirtualBox VMs/gz/photon.vmdk"
	tar --format=gnu -cf gz.ova gz.ovf photon.vmdk.gz
	vbm import gz.ova --vsys 0 --vmname gz2
	succeeds
	holds_data "VirtualBox VMs/gz2/photon.vmdk"
	truncate -s -100 photon.vmdk.gz
	vbm import gz.ovf --vsys 0 --vmname gz3
	fails_with 1 "damaged or truncated"
	# More than the disk can need.
	head -c 90M /dev/zero | gzip >photon.vmdk.gz
	vbm import gz.ovf --vsys 0 --vmname gz3
	fails_with 1 "unpacks to more than"
	nothing_left "VirtualBox VMs/gz3"
}

@test "a file that is not what the manifest says is refused, and nothing is left" {
	make_web web1
	VBoxManage export web1 -o box.ovf --manifest 2>/dev/null
	VBoxManage export web1 -o box.ova --manifest 2>/dev/null
	sed -i "/box-disk/s/=.*/= $(printf '%064d' 0)/" box.mf
	vbm import box.ovf
	fails_with 1 "the manifest says"
	nothing_left "VirtualBox VMs/web1 1"
	for sum in 1 256 512; do
		for f in box.ovf box-disk001.vmdk; do
			echo "SHA$sum($f)= $(sha${sum}sum <$f | cut -d' ' -f1)"
		done >box.mf
		vbm import box.ovf --vsys 0 --vmname sum$sum
		succeeds
	done
	echo >>box.ovf
	vbm import box.ovf
	fails_with 1 "digest of 'box.ovf'"
	echo 'MD4(box.ovf)= 00' >box.mf
	vbm import box.ovf
	fails_with 1 "SHA1, SHA256 and SHA512"
	# One byte of the disk inside of an archive.
	printf X | dd of=box.ova bs=1 seek=$(($(stat -c %s box.ova) - 70000)) conv=notrunc status=none
	vbm import box.ova
	fails_with 1 "the manifest says"
	nothing_left "VirtualBox VMs/web1 1"
}

@test "an appliance cannot bring files of this host into a machine" {
	vmware_disk
	echo secret >secret
	refused() { # TEXT, of bad.ovf
		vbm import bad.ovf --vsys 0 --vmname bad
		fails_with 1 "$1"
		nothing_left "VirtualBox VMs/bad"
	}
	for name in ../secret /etc/passwd a/../../secret file:///etc/passwd ./secret; do
		vmware_ovf "$name" vmdk >bad.ovf
		refused "not in the package"
	done
	ln -s ../photon.vmdk link.vmdk
	vmware_ovf link.vmdk >bad.ovf
	refused "no regular file"
	mkdir real && cp photon.vmdk real/ && ln -s real dir
	vmware_ovf dir/photon.vmdk >bad.ovf
	refused "no directory"
	vmware_ovf real/photon.vmdk >bad.ovf
	vbm import bad.ovf --vsys 0 --vmname good
	succeeds
	# Images that name other files.
	qemu-img create -q -f qcow2 -b "$PWD/photon.vmdk" -F vmdk child.qcow2
	vmware_ovf child.qcow2 qcow >bad.ovf
	refused "reads through to another file"
	truncate -s 6M other.raw
	qemu-img create -q -f vmdk -o subformat=monolithicFlat flat.vmdk 6M
	vmware_ovf flat.vmdk >bad.ovf
	refused "further files"
	# Never raw because nothing else fits.
	vmware_ovf other.raw "" >bad.ovf
	refused "no format that is known"
	vmware_ovf secret >bad.ovf
	refused "cannot be used"
}

@test "an archive cannot write outside of its place, nor hold anything but files" {
	vmware_disk
	vmware_ovf photon.vmdk >photon.ovf
	tar --transform='s|photon.vmdk|../photon.vmdk|' -P -cf bad.ova photon.ovf photon.vmdk
	vbm import bad.ova
	fails_with 1 "which could leave it"
	ln -s /etc/passwd l && tar cf bad.ova photon.ovf l
	vbm import bad.ova
	fails_with 1 "which is no file"
	tar cf bad.ova photon.ovf
	vbm import bad.ova
	fails_with 1 "does not have the file 'photon.vmdk'"
	tar cf bad.ova photon.vmdk
	vbm import bad.ova
	fails_with 1 "has no .ovf file"
	tar cf good.ova photon.vmdk photon.ovf # the wrong way round, which some have
	head -c 300000 good.ova >bad.ova
	vbm import bad.ova
	fails_with 1 "Appliance read failed"
	echo nonsense >bad.ova
	vbm import bad.ova
	fails_with 1 "cannot be read as an OVA"
	vbm import good.ova
	succeeds
	nothing_left
}

@test "an envelope that is not one is refused with the reason" {
	refused() { # TEXT
		vbm import bad.ovf
		fails_with 1 "$1"
	}
	echo '<!DOCTYPE x [<!ENTITY a "b">]><x>&a;</x>' >bad.ovf
	refused "document type declaration"
	echo '<Envelope>' >bad.ovf
	refused "line 2: no element found"
	echo '<Envelope xmlns="urn:other"/>' >bad.ovf
	refused "no OVF envelope"
	e='<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1"'
	echo "$e/>" >bad.ovf
	refused "no virtual system"
	printf '%s>' "$e" >bad.ovf
	for _ in $(seq 80); do printf '<a>' >>bad.ovf; done
	refused "nested too deeply"
	{ printf '%s>' "$e" && yes '<a b=""/>' | head -n 150000; echo '</Envelope>'; } >bad.ovf
	refused "too many elements"
	vmware_ovf x.vmdk | sed 's/ovf:fileRef="file1"/ovf:fileRef="file2"/' >bad.ovf
	refused "which <References> does not have"
	vmware_ovf x.vmdk | sed 's|/disk/vmdisk1|/disk/vmdisk9|' >bad.ovf
	refused "which the envelope does not have"
	vmware_ovf x.vmdk | sed 's/ovf:capacity="6"/ovf:capacity="-6"/' >bad.ovf
	refused "the capacity of a disk is '-6'"
	vmware_ovf x.vmdk vmdk ' ovf:compression="bzip2"' >bad.ovf
	refused "gzip can be used"
	vbm import none.ovf
	fails_with 1 "No such file"
	vbm import some.txt
	fails_with 1 "neither the suffix"
	vbm import
	fails_with 2 "Not enough"
}

@test "what names files of another host, or opens doors to this one, is not taken over from VirtualBox's part" {
	make_web web1
	VBoxManage export web1 -o box.ovf 2>/dev/null
	sed -i 's|<BIOS>|<SharedFolders><SharedFolder name="share" hostPath="/etc" writable="true"/></SharedFolders>&|
		s|<Hardware>|<ExtraData><ExtraDataItem name="VBoxInternal2/SharedFoldersEnableSymlinksCreate/x" value="1"/></ExtraData>&|
		s|<BIOS>|<UART><Port slot="0" enabled="true" IOBase="0x3f8" IRQ="4" path="/tmp/secret" hostMode="RawFile"/></UART>&|
		s|controller="VBoxVGA"|controller="VMSVGA"|' box.ovf
	vbm import box.ovf --vsys 0 --vmname b
	succeeds
	[[ $stderr == *"Not taken over"*"graphicscontroller=VMSVGA"*"uartmode1=RawFile,/tmp/secret"*"shared folder 'share'"*VBoxInternal2* ]]
	[ "$(mr b uart1) $(mr b uartmode1)" = "0x03f8,4 disconnected" ]
	[ -z "$(mr b SharedFolderNameMachineMapping1)" ]
	[ "$(VBoxManage getextradata b VBoxInternal2/SharedFoldersEnableSymlinksCreate/x)" = "No value set!" ]
}

@test "nothing that exists is written over" {
	make_web web1
	echo mine >box.ovf
	vbm export web1 -o box.ovf
	fails_with 1 "already exists -- skipping export"
	rm box.ovf
	echo mine >box-disk001.vmdk
	vbm export web1 -o box.ovf
	fails_with 1 "box-disk001.vmdk' already exists"
	[ "$(cat box-disk001.vmdk)" = mine ]
	nothing_left box.ovf
	rm box-disk001.vmdk
	VBoxManage export web1 -o box.ovf 2>/dev/null
	vbm import box.ovf --vsys 0 --vmname web1
	fails_with 1 "already exists"
	vbm import box.ovf --vsys 0 --vmname b --unit 12 --disk "$PWD/web1.vdi"
	fails_with 1 VERR_ALREADY_EXISTS
	holds_data web1.vdi
	nothing_left "VirtualBox VMs/b"
	for bad in "web1" "-o x.ovf" "none -o x.ovf" "web1 -o x.tar" "web1 -o none/x.ovf" "web1 web1 -o x.ovf" "web1 -o x.ovf --opc10" \
		"web1 -o x.ovf --options y" "web1 -o x.ovf --product P" "web1 -o x.ovf --vsys 1 --product P"; do
		# shellcheck disable=SC2086
		vbm export $bad
		[ "$status" -ne 0 ] || { echo "taken: $bad"; false; }
	done
	rm web1.vdi
	vbm export web1 -o x.ova
	fails_with 1 "Appliance write failed"
	nothing_left x.ova
}

@test "what a killed import or export had made is removed by the next command, which says so" {
	make_web web1
	truncate -s 600M big.raw
	dd if=/dev/urandom of=big.raw bs=1M count=300 conv=notrunc status=none
	VBoxManage convertfromraw big.raw big.vdi 2>/dev/null
	VBoxManage storageattach web1 --storagectl 'SATA Controller' --port 0 --device 0 --type hdd --medium big.vdi
	until_made() { # PATH PID
		local i
		for i in $(seq 1000); do
			[ ! -e "$1" ] || break
			sleep 0.005
		done
		kill -KILL "$2"
		! wait "$2"
	}
	VBoxManage export web1 -o x.ova --manifest >/dev/null 2>&1 &
	until_made .lodge-x/x-disk001.vmdk $!
	vbm list vms
	[[ $stderr == *"An interrupted export of '$HOME/x.ova' was undone"* ]]
	nothing_left x.ova
	vbm list vms
	[ -z "$stderr" ]
	VBoxManage export web1 -o x.ova 2>/dev/null
	VBoxManage import x.ova --vsys 0 --vmname k >/dev/null 2>&1 &
	until_made "VirtualBox VMs/k/x-disk001.vmdk" $!
	vbm list vms
	[[ $stderr == *"An interrupted import of '$HOME/VirtualBox VMs/k/k.vbox' was undone"* ]]
	nothing_left "VirtualBox VMs/k"
	vbm import x.ova --vsys 0 --vmname k
	succeeds
	# Ctrl-C undoes it at once.
	VBoxManage export k -o y.ova >/dev/null 2>said &
	for _ in $(seq 1000); do
		[ ! -e .lodge-y/y-disk001.vmdk ] || break
		sleep 0.005
	done
	kill -TERM $!
	! wait $!
	grep -q CANCELED said
	nothing_left y.ova
}
