#!/usr/bin/env bats
# A guest that compiles: Lua, from Debian's own source package, with the compiler of the benchmark's Debian image
# (bench/make-image), once in a guest and once by the same programs on the bare host. Every file has to be the same.

load ../guest/common

setup_file() {
	export PATH=$LODGE_BIN:$PATH:/sbin:/usr/sbin LODGE_ENGINE=${LODGE_TEST_ENGINE:-jit}
	IMAGE=$LODGE_OUT/cache/bench.img
	export IMAGE
	[[ -f $IMAGE && -d $IMAGE.root ]] || { mkdir -p "$LODGE_OUT/cache" && bench/make-image "$IMAGE"; }
	fetch_source "$LODGE_OUT/cache/source"
	job=$BATS_FILE_TMPDIR/job # becomes the guest's second disk, and /bench of the native run
	mkdir "$job"
	tar -C "$job" -xzf "$LODGE_OUT"/cache/source/lua5.4_*.orig.tar.gz
	mv "$job"/lua-* "$job/lua"
	cat >"$job/build" <<-'BUILD'
		cp -r /bench/lua /tmp/lua
		make -C /tmp/lua/src -j2 generic >/tmp/log 2>&1 || { tail /tmp/log; exit 1; }
		cd /tmp/lua/src
		./lua -e 'local t = {} for i = 1, 1000 do t[#t + 1] = i * i end print("RAN", #t, t[1000])'
		sha256sum lua luac liblua.a *.o | sed 's/^/FILE /'
		echo BUILT
	BUILD
	echo 'nproc; sh /bench/build' >"$job/guest"
	mke2fs -q -t ext4 -L bench -d "$job" "$BATS_FILE_TMPDIR/job.img" 64M
	as_host "$job" sh /bench/build >"$BATS_FILE_TMPDIR/host"
}

# apt checks what it fetches; its lists are kept here and not the machine's.
fetch_source() { # DIRECTORY
	! compgen -G "$1/lua5.4_*.orig.tar.gz" >/dev/null || return 0
	mkdir -p "$1/lists/partial" "$1/archives/partial"
	echo 'deb-src http://deb.debian.org/debian bookworm main' >"$1/sources.list"
	: >"$1/status"
	local apt=(-qq -o "Dir::State::lists=$1/lists" -o "Dir::State::status=$1/status" -o "Dir::Cache=$1"
		-o "Dir::Etc::sourcelist=$1/sources.list" -o Dir::Etc::sourceparts=/dev/null -o APT::Sandbox::User=
		-o Debug::NoLocking=1)
	(cd "$1" && apt-get "${apt[@]}" update && apt-get "${apt[@]}" source --download-only lua5.4)
}

as_host() { # JOB COMMAND...: in the image's root, in name spaces of its own
	local job=$1 root=$IMAGE.root user=(--user --map-root-user)
	shift
	[[ $(id -u) != 0 ]] || user=()
	# shellcheck disable=SC2016
	unshare "${user[@]}" --mount --pid --fork --kill-child sh -c 'mount --bind "$1" "$2/bench" &&
		mount -t tmpfs tmp "$2/tmp" && mount --rbind /dev "$2/dev" && mount -t proc proc "$2/proc" && root=$2 && shift 2 &&
		exec chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"' sh "$job" "$root" "$@"
}

compile_in_guest() { # CPUS
	timeout 1300 lodge boot --memory 512 --cpus "$1" --display none --timeout 1280 --stats --serial "file:$console" \
		--disk "$IMAGE,bus=virtio,readonly=on" --disk "$BATS_TEST_TMPDIR/job.img,bus=virtio" \
		--kernel "$IMAGE.vmlinuz" --initrd "$IMAGE.initrd" \
		--append 'root=LABEL=lodge-bench ro console=ttyS0,115200 quiet init=/bench-init'
}

@test "make -j2 of Lua in a Debian guest with two CPUs makes byte for byte what the host makes" {
	cp --sparse=always "$BATS_FILE_TMPDIR/job.img" "$BATS_TEST_TMPDIR/job.img"
	run compile_in_guest 2
	echo "$output"
	show "$console"
	[ "$status" -eq 0 ]
	tr -d '\r' <"$console" >"$BATS_TEST_TMPDIR/said"
	grep -qx 2 "$BATS_TEST_TMPDIR/said"
	grep -qx BUILT "$BATS_TEST_TMPDIR/said"
	grep -E '^(FILE|RAN) ' "$BATS_FILE_TMPDIR/host" >"$BATS_TEST_TMPDIR/expected"
	[ "$(grep -c '^FILE .* .*\.o$' "$BATS_TEST_TMPDIR/expected")" -ge 30 ]
	grep -E '^(FILE|RAN) ' "$BATS_TEST_TMPDIR/said" | diff "$BATS_TEST_TMPDIR/expected" -
}
