#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# What Vagrant calls, as it calls it and with the answers it reads. The guest is the firmware that finds nothing to boot;
# test/guest/vagrant.bats has the program itself.
load common

# A box as Packer writes them: box.ovf and a stream-optimized VMDK.
make_box() { # DIRECTORY
	mkdir -p "$1"
	qemu-img create -q -f vmdk -o subformat=streamOptimized "$1/box-disk001.vmdk" 40M
	cat >"$1/box.ovf" <<-OVF
		<?xml version="1.0"?>
		<Envelope ovf:version="1.0" xml:lang="en-US" xmlns="http://schemas.dmtf.org/ovf/envelope/1"
		  xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1"
		  xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData"
		  xmlns:vssd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData"
		  xmlns:vbox="http://www.virtualbox.org/ovf/machine">
		  <References><File ovf:href="box-disk001.vmdk" ovf:id="file1"/></References>
		  <DiskSection><Info>Disks</Info>
		    <Disk ovf:capacity="41943040" ovf:diskId="vmdisk1" ovf:fileRef="file1"
		      ovf:format="http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"/></DiskSection>
		  <NetworkSection><Info>Networks</Info><Network ovf:name="NAT"/></NetworkSection>
		  <VirtualSystem ovf:id="packer-fakebox"><Info>A virtual machine</Info>
		    <OperatingSystemSection ovf:id="96"><Info>The guest's system</Info><Description>Debian_64</Description>
		      <vbox:OSType ovf:required="false">Debian_64</vbox:OSType></OperatingSystemSection>
		    <VirtualHardwareSection><Info>Hardware</Info>
		      <System><vssd:ElementName>Virtual Hardware Family</vssd:ElementName><vssd:InstanceID>0</vssd:InstanceID>
		        <vssd:VirtualSystemIdentifier>packer-fakebox</vssd:VirtualSystemIdentifier>
		        <vssd:VirtualSystemType>virtualbox-2.2</vssd:VirtualSystemType></System>
		      <Item><rasd:Caption>1 virtual CPU</rasd:Caption><rasd:ElementName>1 virtual CPU</rasd:ElementName>
		        <rasd:InstanceID>1</rasd:InstanceID><rasd:ResourceType>3</rasd:ResourceType>
		        <rasd:VirtualQuantity>1</rasd:VirtualQuantity></Item>
		      <Item><rasd:AllocationUnits>MegaBytes</rasd:AllocationUnits><rasd:Caption>64 MB of memory</rasd:Caption>
		        <rasd:ElementName>64 MB of memory</rasd:ElementName><rasd:InstanceID>2</rasd:InstanceID>
		        <rasd:ResourceType>4</rasd:ResourceType><rasd:VirtualQuantity>64</rasd:VirtualQuantity></Item>
		      <Item><rasd:Address>0</rasd:Address><rasd:Caption>sataController0</rasd:Caption>
		        <rasd:ElementName>sataController0</rasd:ElementName><rasd:InstanceID>3</rasd:InstanceID>
		        <rasd:ResourceSubType>AHCI</rasd:ResourceSubType><rasd:ResourceType>20</rasd:ResourceType></Item>
		      <Item><rasd:AddressOnParent>0</rasd:AddressOnParent><rasd:Caption>disk1</rasd:Caption>
		        <rasd:ElementName>disk1</rasd:ElementName><rasd:HostResource>/disk/vmdisk1</rasd:HostResource>
		        <rasd:InstanceID>4</rasd:InstanceID><rasd:Parent>3</rasd:Parent>
		        <rasd:ResourceType>17</rasd:ResourceType></Item>
		      <Item><rasd:AutomaticAllocation>true</rasd:AutomaticAllocation><rasd:Connection>NAT</rasd:Connection>
		        <rasd:Caption>Ethernet adapter on 'NAT'</rasd:Caption>
		        <rasd:ElementName>Ethernet adapter on 'NAT'</rasd:ElementName><rasd:InstanceID>5</rasd:InstanceID>
		        <rasd:ResourceSubType>E1000</rasd:ResourceSubType><rasd:ResourceType>10</rasd:ResourceType></Item>
		    </VirtualHardwareSection>
		  </VirtualSystem>
		</Envelope>
	OVF
}

@test "every call of 72 commands of Vagrant 2.3.4 is answered as Vagrant reads it" {
	needs_machines
	VBoxManage help import >/dev/null || skip "there is no import"
	make_box "$HOME/work/vhome/boxes/fake-VAGRANTSLASH-box/0/virtualbox"
	"$BATS_TEST_DIRNAME/../conform/replay-vagrant" "$BATS_TEST_DIRNAME/../conform/vagrant-2.3.4.calls" "$HOME/work"
	[ -z "$(VBoxManage list runningvms)" ]
}

@test "a version line that Vagrant, Packer and docker-machine understand is all that --version prints" {
	for spelling in --version -V -v -version; do
		vbm "$spelling"
		[[ $output =~ ^7\.0\.[1-9][0-9]*r[0-9]+$ ]]
		[ -z "$stderr" ]
	done
	run vboxmanage --version
	[ "$status" = 0 ]
}

@test "a virtual CPU uses no more of the host's than cpuexecutioncap says, and that can change while it runs" {
	needs_machines
	make_vm spin
	truncate -s 1440K spin.img
	printf '\353\376' | dd of=spin.img conv=notrunc status=none # jmp to itself
	printf '\125\252' | dd of=spin.img bs=1 seek=510 conv=notrunc status=none
	VBoxManage modifyvm spin --memory 32 --cpuexecutioncap 20 --boot1 floppy
	VBoxManage storagectl spin --name F --add floppy
	VBoxManage storageattach spin --storagectl F --port 0 --device 0 --type fdd --medium spin.img
	VBoxManage startvm spin >/dev/null
	pid=$(head -n1 "$LODGE_HOME/run/$(mr spin UUID)/lock")
	# Hundredths of a second of CPU time in one second of the clock, but for the start.
	used() { awk '{ print $14 + $15 }' "/proc/$pid/stat"; }
	sleep 0.5
	a=$(used) t=$(date +%s%N)
	sleep 1.5
	b=$(used) t=$((($(date +%s%N) - t) / 10000000))
	echo "$((b - a)) of $t hundredths"
	[ $(((b - a) * 100)) -lt $((t * 30)) ]
	VBoxManage controlvm spin cpuexecutioncap 60
	[ "$(mr spin cpuexecutioncap)" = 60 ]
	a=$(used) t=$(date +%s%N)
	sleep 1
	b=$(used) t=$((($(date +%s%N) - t) / 10000000))
	echo "$((b - a)) of $t hundredths"
	[ $(((b - a) * 100)) -lt $((t * 70)) ]
	vbm controlvm spin cpuexecutioncap 0
	fails_with 1 "cpuexecutioncap"
	VBoxManage controlvm spin poweroff 2>/dev/null
}
