#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# The course's script, exercise 2, as it is written, with a disc that has nothing to boot and no waiting.
load common

@test "the course's script runs to its end and says what it says with VirtualBox" {
	needs_machines
	make_iso alpine.iso
	mkdir tools
	printf '#!/bin/sh\nexec /bin/sleep 0.2\n' >tools/sleep
	chmod +x tools/sleep
	export ALPINE_ISO=$HOME/alpine.iso
	PATH=$HOME/tools:$PATH run --separate-stderr bash "$BATS_TEST_DIRNAME/../course/exercise2.sh"
	succeeds
	grep -qE '^UUID: [0-9a-f-]{36}$' <<<"$output"
	grep -qE '^Medium created. UUID: [0-9a-f-]{36}$' <<<"$output"
	diff <(sed -E 's/[0-9a-f]{8}-[0-9a-f-]{27}/UUID/' <<<"$output") - <<-END
		Virtual machine 'AlpineLinux' is created and registered.
		UUID: UUID
		Settings file: '$HOME/VirtualBox VMs/AlpineLinux/AlpineLinux.vbox'
		Medium created. UUID: UUID
		Waiting for VM "AlpineLinux" to power on...
		VM "AlpineLinux" has been successfully started.
	END
	# shellcheck disable=SC2154 # set by run
	[ "$(grep -c 'The guest execution service is not ready (yet)' <<<"$stderr")" = 2 ]
	vbm showvminfo AlpineLinux --machinereadable
	for line in 'ostype="Linux 2.6 / 3.x / 4.x / 5.x (64-bit)"' memory=1024 cpus=1 'VMState="poweroff"' \
		'storagecontrollername0="SATA Controller"' 'storagecontrollertype0="IntelAhci"' \
		"\"SATA Controller-0-0\"=\"$HOME/AlpineLinux.vdi\"" 'storagecontrollertype1="PIIX4"' \
		"\"IDE Controller-1-0\"=\"$HOME/alpine.iso\"" 'nic1="nat"' 'audio="none"'; do
		has_line "$line"
	done
}
