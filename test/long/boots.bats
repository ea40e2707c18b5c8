#!/usr/bin/env bats
# Every stock kernel, through BIOS, from every kind of disk it has drivers for, with 1, 2 and 4 virtual CPUs; and other
# people's bootable CDs.

load ../guest/common

setup_file() {
	setup_file_common
	for k in "cloud linux-image-cloud-amd64 amd64" "686 linux-image-686 i386"; do
		set -- $k
		[[ -f $LODGE_OUT/$1.iso && $LODGE_OUT/$1.iso -nt tools/make-iso ]] ||
			tools/make-iso "$LODGE_OUT/$1.iso" "$LODGE_OUT/cache" "$2" "$3"
	done
}

# boot_image ISO CPUS OPTION...: through SeaBIOS until the guest says it is ready.
boot_image() {
	local image=$1 cpus=$2 pid ok=1
	shift 2
	rm -f "$console"
	timeout 240 lodge boot --memory 384 --cpus "$cpus" --serial "file:$console" --display "text:$BATS_TEST_TMPDIR/screen" \
		--timeout 230 "$@" 3>&- &
	pid=$!
	wait_for 220 grep -qs 'LODGE-GUEST-READY' "$console" || ok=0
	kill $pid
	wait $pid || true
	[[ $ok == 1 ]] || { show "$console"; show "$BATS_TEST_TMPDIR/screen"; return 1; }
}

for_kernels_and_cpus() { # OPTION with ISO in place of @
	local kernel cpus
	for kernel in demo cloud 686; do
		for cpus in 1 2 4; do
			echo "$kernel with $cpus CPUs: $*"
			boot_image "$kernel" "$cpus" "${@//@/$LODGE_OUT/$kernel.iso}"
		done
	done
}

@test "the generic, cloud and 686 kernels boot from an IDE CD with 1, 2 and 4 CPUs" {
	for_kernels_and_cpus --cdrom @
}

@test "they boot from an IDE disk" {
	for_kernels_and_cpus --disk @,bus=ide,readonly=on
}

@test "they boot from an AHCI disk" {
	for_kernels_and_cpus --disk @,bus=ahci,readonly=on
}

@test "they boot from a virtio disk" {
	for_kernels_and_cpus --disk @,bus=virtio,readonly=on
}

screen_shows() { # SECONDS TEXT OPTION...
	local seconds=$1 text=$2
	shift 2
	timeout 200 lodge boot --memory 128 --timeout "$seconds" --display "text:$BATS_TEST_TMPDIR/screen" "$@" || true
	grep -q -- "$text" "$BATS_TEST_TMPDIR/screen" || { show "$BATS_TEST_TMPDIR/screen"; return 1; }
}

@test "GRUB's rescue CD shows its menu" {
	screen_shows 20 'GNU GRUB  version' --cdrom /usr/lib/grub-rescue/grub-rescue-cdrom.iso
}

@test "iPXE's CD gets an address from our DHCP server" {
	screen_shows 60 'net0: 10.0.2.15/255.255.255.0' --cdrom /usr/lib/ipxe/ipxe.iso --nic nat
}

@test "memtest86+ tests memory and finds no error" {
	screen_shows 40 'Errors: 0' --cdrom /usr/lib/memtest86+/memtest86+x64.iso
	grep -q 'Testing:' "$BATS_TEST_TMPDIR/screen"
}

@test "the generic kernel boots through BIOS from NVMe, virtio SCSI, LSI Logic and LSI SAS disks" {
	local bus
	for bus in nvme virtio-scsi lsilogic lsisas; do
		boot_image demo 1 --disk "$LODGE_OUT/demo.iso,bus=$bus,readonly=on"
	done
}
