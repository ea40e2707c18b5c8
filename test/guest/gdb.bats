#!/usr/bin/env bats
# Debian's gdb on a stock kernel. Its symbols are not available: addresses come from /proc/kallsyms of a first boot, which
# are those of every boot with "nokaslr".

load common

setup_file() {
	setup_file_common
	command -v gdb >/dev/null || return 0
	setup_symbols
}

# The addresses of some symbols, in $BATS_FILE_TMPDIR/symbols.
setup_symbols() {
	local script
	script=$(printf 'lodge.sh=%s' "$(base64 -w0 <<<'mount -t proc proc /proc 2>/dev/null; grep -E " (start_kernel|do_sys_openat2|__x64_sys_getppid|jiffies|linux_banner)$" /proc/kallsyms')")
	timeout 120 lodge boot --engine jit --memory 256 --kernel "$ISO.vmlinuz" --initrd "$ISO.initrd" \
		--append "console=ttyS0 quiet nokaslr $script" --serial "file:$BATS_FILE_TMPDIR/console" --display none --timeout 110
	tr -d '\r' <"$BATS_FILE_TMPDIR/console" | awk 'NF == 3 && $1 ~ /^ffffffff/ { print $3, "0x" $1 }' >"$BATS_FILE_TMPDIR/symbols"
}

setup() {
	console=$BATS_TEST_TMPDIR/console
	command -v gdb >/dev/null || skip "gdb is not installed"
}

address() { awk -v n="$1" '$1 == n { print $2 }' "$BATS_FILE_TMPDIR/symbols"; }

# start_debugged SCRIPT OPTION...: a kernel that waits for gdb on $socket.
start_debugged() {
	local script
	script=$(script <<<"$1")
	shift
	socket=$BATS_TEST_TMPDIR/gdb.sock
	timeout 120 lodge boot --memory 256 --kernel "$ISO.vmlinuz" --initrd "$ISO.initrd" \
		--append "console=ttyS0 quiet nokaslr $script" --serial "file:$console" --display none --timeout 110 \
		--gdb "$socket" "$@" 2>"$BATS_TEST_TMPDIR/lodge" 3>&- &
	lodge_pid=$!
	wait_for 20 test -S "$socket"
}

# The commands on standard input, behind the connection.
debug() {
	{
		printf 'set confirm off\nset pagination off\nset width 0\nset architecture i386:x86-64\ntarget remote %s\n' "$socket"
		cat
	} >"$BATS_TEST_TMPDIR/commands"
	timeout 100 gdb -nx -batch -x "$BATS_TEST_TMPDIR/commands" 2>&1
}

@test "breakpoints stop a stock kernel with two CPUs, and it goes on when gdb leaves: interp, jit" {
	for engine in interp jit; do
		start_debugged 'grep -c ^processor /proc/cpuinfo; echo sum $((6 * 7))' --engine $engine --cpus 2 --gdb-wait
		run debug <<-END
			break *$(address start_kernel)
			continue
			x/s $(address linux_banner)
			info threads
			delete
			break *$(address do_sys_openat2)
			continue
			continue
			printf "at %d\n", \$rip == $(address do_sys_openat2)
			delete
			detach
		END
		echo "$output"
		wait "$lodge_pid"
		show "$console"
		[[ $output == *"Breakpoint 1, "* ]]
		[[ $output == *"Linux version "* ]]
		[[ $output == *'"cpu1" (CPU 1, waits for its start'* ]]
		[[ $output == *"at 1"* ]]
		grep -q '^2' "$console"
		grep -q '^sum 42' "$console"
	done
}

@test "a thousand single steps lead through the same states under the interpreter and the translator" {
	for engine in interp jit; do
		start_debugged 'true' --engine $engine --gdb-wait
		run debug <<-END
			break *$(address start_kernel)
			continue
			delete
			set \$i = 0
			while \$i < 1000
			stepi
			printf "%lx %lx %lx %lx %lx %lx %lx %lx %x\n", \$rip, \$rax, \$rbx, \$rcx, \$rdx, \$rsi, \$rdi, \$rsp, \$eflags & 0xcd5
			set \$i = \$i + 1
			end
			kill
		END
		wait "$lodge_pid" || true
		grep -E '^ffffffff[0-9a-f]{8} ' <<<"$output" >"$BATS_TEST_TMPDIR/$engine"
		[ "$(wc -l <"$BATS_TEST_TMPDIR/$engine")" -eq 1000 ]
	done
	cmp "$BATS_TEST_TMPDIR/interp" "$BATS_TEST_TMPDIR/jit"
}

@test "a watchpoint stops behind the write that changes a variable" {
	start_debugged 'true' --engine jit --gdb-wait
	run debug <<-END
		break *$(address __x64_sys_getppid)
		break *$(address do_sys_openat2)
		continue
		delete
		watch *(int *)$(address jiffies)
		continue
		continue
		delete
		kill
	END
	echo "$output"
	wait "$lodge_pid" || true
	[ "$(grep -c 'Old value' <<<"$output")" -ge 2 ]
	old=$(grep -m1 'Old value' <<<"$output" | sed 's/.* = //') new=$(grep -m1 'New value' <<<"$output" | sed 's/.* = //')
	[ $((new - old)) -ge 1 ]
}

@test "Ctrl-C stops a running machine, registers and memory can be changed, the monitor shows it, and it goes on" {
	start_debugged 'echo up; sleep 4; echo alive' --engine jit --cpus 2
	wait_for 60 grep -q '^up' "$console"
	run debug <<-END
		python
		import threading, os, signal
		threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
		end
		continue
		set \$k_gs_base = \$k_gs_base
		set \$save = \$rbx
		set \$rbx = 0x1234
		p/x \$rbx
		set \$rbx = \$save
		p/x *(short *)$(address linux_banner)
		p \$cr0 & 1
		p \$ymm0
		monitor cpus
		monitor block
		monitor lapic
		monitor dmesg 5
		monitor nonsense
		detach
	END
	echo "$output"
	wait "$lodge_pid"
	show "$console"
	[[ $output == *"SIGINT"* ]]
	[[ $output == *"= 0x1234"* ]]
	[[ $output == *"= 0x694c"* ]] # "Li"
	[[ $output == *"cr3 "* ]]
	[[ $output == *"There is no 'nonsense'"* ]]
	[ "$(grep -cE '^\[ *[0-9]+\.[0-9]{6}\] ' <<<"$output")" -ge 5 ] # the kernel's log
	grep -q '^alive' "$console"
}

@test "the boot sector of a CD is met at 7c00 in real mode, and a tick counter of the BIOS is watched" {
	socket=$BATS_TEST_TMPDIR/gdb.sock
	timeout 60 lodge boot --engine jit --cdrom "$ISO" --display none --gdb "$socket" --gdb-wait 2>"$BATS_TEST_TMPDIR/lodge" 3>&- &
	lodge_pid=$!
	wait_for 20 test -S "$socket"
	run debug <<-END
		break *0x7c00
		continue
		monitor disas
		delete
		watch *(char *)0x46c
		continue
		kill
	END
	echo "$output"
	wait "$lodge_pid" || true
	[[ $output == *"Breakpoint 1, 0x0000000000007c00"* ]]
	[[ $output == *"16-bit code"*"7c00  fa                 cli"* ]]
	[[ $output == *"New value"* ]]
}

@test "the trace of exits counts places, and a block is shown as guest and host code" {
	# shellcheck disable=SC2016
	run timeout 120 lodge boot --engine jit --memory 256 --kernel "$ISO.vmlinuz" --initrd "$ISO.initrd" \
		--append "console=ttyS0 quiet nokaslr $(script <<<'echo sum $((6 * 7))')" --serial "file:$console" --display none \
		--timeout 110 --trace "exits:$BATS_TEST_TMPDIR/trace" --stats \
		--dump-block "$(address do_sys_openat2),$BATS_TEST_TMPDIR/block"
	echo "$output"
	[ "$status" -eq 0 ]
	[[ $output == *"exits by reason"*" mmio-write"*"exits by place"*" rip ffffffff"* ]]
	[[ $output == *"host bytes a guest byte"* ]]
	grep -qE '^0\.[0-9]{6} cpu0 ' "$BATS_TEST_TMPDIR/trace"
	show "$BATS_TEST_TMPDIR/block"
	grep -q '^cpu0: block at ' "$BATS_TEST_TMPDIR/block"
	grep -q "^    $(address do_sys_openat2 | cut -c3-) " "$BATS_TEST_TMPDIR/block" # the guest's instruction
	grep -qE '^    \+[0-9a-f]{6}  ' "$BATS_TEST_TMPDIR/block"                        # the host's
}

@test "what makes no sense is refused with a sentence" {
	run lodge boot --gdb-wait
	[ "$status" -eq 2 ]
	[[ $output == *"--gdb-wait needs --gdb"* ]]
	run lodge boot --trace ports
	[ "$status" -eq 2 ]
	run lodge boot --gdb /nonexistent/dir/socket --display none
	[ "$status" -eq 4 ]
	[[ $output == *"cannot listen for gdb on /nonexistent/dir/socket"* ]]
}
