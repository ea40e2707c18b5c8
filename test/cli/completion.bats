#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# What the tab key offers.
load common

# complete_words FUNCTION WORD...: what it offers for the last word.
complete_words() {
	COMP_WORDS=("${@:2}") COMP_CWORD=$(($# - 2)) COMPREPLY=()
	compopt() { :; } # only there while bash completes
	"$1"
	printf '%s\n' "${COMPREPLY[@]}"
}

@test "lodge completes its verbs, the options that its help names, engines and files" {
	# shellcheck source=front/lodge/completion.bash
	source "$BATS_TEST_DIRNAME/../../front/lodge/completion.bash"
	[ "$(complete_words _lodge lodge bo)" = boot ]
	[ "$(complete_words _lodge lodge boot --se)" = --serial ]
	[ "$(complete_words _lodge lodge boot --engine j)" = jit ]
	[ "$(complete_words _lodge lodge net tr)" = trace ]
	touch kernel.elf
	[ "$(complete_words _lodge lodge boot --kernel kern)" = kernel.elf ]
}

@test "VBoxManage completes its commands, machines, the options that its help names, and snapshots" {
	# shellcheck source=front/vboxmanage/completion.bash
	source "$BATS_TEST_DIRNAME/../../front/vboxmanage/completion.bash"
	VBoxManage createvm --name 'web 1' --register >/dev/null
	VBoxManage snapshot 'web 1' take before >/dev/null
	[ "$(complete_words _vboxmanage VBoxManage startv)" = startvm ]
	[ "$(complete_words _vboxmanage VBoxManage startvm we)" = 'web\ 1' ]
	[ "$(complete_words _vboxmanage VBoxManage modifyvm 'web 1' --memo)" = --memory ]
	[ "$(complete_words _vboxmanage VBoxManage snapshot 'web 1' restore '')" = before ]
}
