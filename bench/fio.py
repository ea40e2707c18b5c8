#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measure a guest's disks with fio, in one run under Lodge and under QEMU's TCG with the same image format.

    bench/fio.py OUT_DIR [--engine E] [--buses LIST] [--formats LIST] [--seconds N] [--rounds N] [--sides LIST] [--size MIB]

The guest is a Debian with a stock kernel from OUT_DIR/cache/fio.img, made the first time (mmdebstrap; a few minutes), on
a disk of its own; what is measured is a second disk on each bus (virtio, ahci, nvme), allocated before, through fio's
libaio with O_DIRECT: sequential reads and writes of 128 KiB, random ones of 4 KiB at depth 1 and 16. Both sides leave
caching to the host's page cache (QEMU: cache=writeback). Rounds of the sides alternate; figures are medians. Writes
OUT_DIR/fio.json.
"""
import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROWS = {  # name: rw, block size, depth, figure
    "sequential read 128 KiB": ("read", "128k", 8, "MB/s"),
    "sequential write 128 KiB": ("write", "128k", 8, "MB/s"),
    "random read 4 KiB, depth 1": ("randread", "4k", 1, "IOPS"),
    "random read 4 KiB, depth 16": ("randread", "4k", 16, "IOPS"),
    "random write 4 KiB, depth 1": ("randwrite", "4k", 1, "IOPS"),
    "random write 4 KiB, depth 16": ("randwrite", "4k", 16, "IOPS"),
}
INIT = """#!/bin/sh
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev 2>/dev/null; mount -t tmpfs tmp /tmp
exec >/dev/ttyS0 2>&1 </dev/null
stty -F /dev/ttyS0 -onlcr
modprobe -a ahci nvme sd_mod virtio_blk 2>/dev/null
for i in $(seq 100); do disk=$(lsblk -dnbo NAME,SIZE | awk '$2 == '$(sed 's/.*fio.size=\\([0-9]*\\).*/\\1/' /proc/cmdline)' { print $1 }'); [ -n "$disk" ] && break; sleep 0.1; done
echo "FIO disk $disk"
seconds=$(sed 's/.*fio.seconds=\\([0-9]*\\).*/\\1/' /proc/cmdline)
while read -r n rw bs depth; do
	fio --name=x --filename=/dev/$disk --direct=1 --ioengine=libaio --rw=$rw --bs=$bs --iodepth=$depth --runtime=$seconds \\
		--time_based --ramp_time=1 --output-format=terse --terse-version=3 | awk -F';' -v n=$n '/^3;/ { print "FIO row", n, $7 + $48, $8 + $49 }'
done <<ROWS
@ROWS@
ROWS
echo FIO done
echo o >/proc/sysrq-trigger
while :; do :; done # no program: its disk may be gone before the power is
"""


def run(cmd, **kw):
    return subprocess.run(cmd, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **kw).stdout


def make_image(image):
    """Root file system without a partition table, kernel and initial RAM disk beside it."""
    work = tempfile.mkdtemp(prefix="lodge-fio.")
    try:
        sources = sorted(set(re.findall(r"^deb .* bookworm(?:-updates|-security)? main$", run(
            ["apt-get", "indextargets", "--format", "deb $(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages",
             "Origin: Debian"]), re.M))) or ["deb http://deb.debian.org/debian bookworm main"]
        init = os.path.join(work, "fio-init")
        with open(init, "w") as f:
            f.write(INIT.replace("@ROWS@", "\n".join(f"{i} {rw} {bs} {d}" for i, (rw, bs, d, _) in enumerate(ROWS.values()))))
        os.chmod(init, 0o755)
        run(["mmdebstrap", "--quiet", "--variant=minbase", "--skip=output/dev", "--aptopt=APT::Install-Recommends \"false\"",
             "--include=linux-image-amd64,initramfs-tools,zstd,kmod,fio,util-linux,mawk", f"--customize-hook=upload {init} /fio-init",
             "--customize-hook=chmod 755 \"$1/fio-init\"; rm -rf \"$1\"/var/cache/apt/* \"$1\"/var/lib/apt/lists/*", "bookworm",
             work + "/root.tar", *sources])
        os.mkdir(work + "/root")
        run(["tar", "-C", work + "/root", "-xf", work + "/root.tar", "--numeric-owner"])
        os.makedirs(work + "/root/dev", exist_ok=True)
        boot = work + "/root/boot/"
        for what in ("vmlinuz", "initrd"):
            name = [n for n in os.listdir(boot) if n.startswith(what)][0]
            shutil.copy(boot + name, f"{image}.{what}")
        run([shutil.which("mke2fs") or "/sbin/mke2fs", "-q", "-t", "ext4", "-L", "fio", "-d", work + "/root", image + ".new", "1400M"])
        os.rename(image + ".new", image)
    finally:
        shutil.rmtree(work, ignore_errors=True)


class Bench:
    def __init__(self, args):
        self.args, self.out = args, os.path.abspath(args.out)
        self.tmp = tempfile.mkdtemp(prefix="lodge-fio.")
        self.image = os.path.join(os.path.abspath(args.cache or self.out + "/cache"), "fio.img")
        os.makedirs(os.path.dirname(self.image), exist_ok=True)
        if not os.path.exists(self.image):
            print("making the guest's image", flush=True)
            make_image(self.image)

    def disk(self, fmt):
        """An image with every block allocated and written."""
        path = f"{self.tmp}/disk.{fmt}"
        if not os.path.exists(path):
            raw = f"{self.tmp}/disk.raw"
            if not os.path.exists(raw):
                with open(raw, "wb") as f:
                    for _ in range(self.args.size):
                        f.write(os.urandom(1 << 20))
            if fmt != "raw":
                run(["qemu-img", "convert", "-O", fmt, raw, path])
        return path

    def append(self):
        return f"root=LABEL=fio ro console=ttyS0 quiet init=/fio-init fio.size={self.args.size << 20} fio.seconds={self.args.seconds}"

    def lodge(self, bus, fmt, console):
        return [os.path.join(self.out, "bin/lodge"), "boot", "--engine", self.args.engine, "--memory", "512", "--kernel",
                self.image + ".vmlinuz", "--initrd", self.image + ".initrd", "--append", self.append(), "--serial",
                "file:" + console, "--display", "none", "--nic", "none", "--disk", f"{self.tmp}/root.img,bus=virtio,format=raw", "--disk",
                f"{self.disk(fmt)},bus={bus},format={fmt}"]

    def tcg(self, bus, fmt, console):
        device = {"virtio": ["virtio-blk-pci,drive=d"], "ahci": ["ahci,id=a", "ide-hd,bus=a.0,drive=d"],
                  "nvme": ["nvme,serial=fio,drive=d"]}[bus]
        return ["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-m", "512", "-kernel", self.image + ".vmlinuz", "-initrd",
                self.image + ".initrd", "-append", self.append(), "-serial", "file:" + console, "-display", "none", "-no-reboot",
                "-nic", "none", "-drive", f"file={self.tmp}/root.img,if=virtio,format=raw", "-drive",
                f"file={self.disk(fmt)},if=none,id=d,format={fmt},cache=writeback"] + [w for d in device for w in ("-device", d)]

    def measure(self, side, bus, fmt):
        console = f"{self.tmp}/console"
        if os.path.exists(console):
            os.unlink(console)
        subprocess.run(["cp", "--sparse=always", self.image, self.tmp + "/root.img"], check=True)
        limit = 180 + len(ROWS) * (self.args.seconds + 8)
        subprocess.run(getattr(self, side)(bus, fmt, console), timeout=limit, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        text = open(console, errors="replace").read()
        found = re.findall(r"FIO row (\d+) (\d+) (\d+)", text)
        if len(found) != len(ROWS):
            raise SystemExit(f"fio: {side} on {bus} ({fmt}) said:\n{text[-1500:]}")
        return [int(kib) * 1024 / 1e6 if what[3] == "MB/s" else float(iops) for (_, kib, iops), what in zip(found, ROWS.values())]

    def go(self):
        a, rows = self.args, []
        print(f"  {'':<44} {'Lodge':>10} {'QEMU TCG':>10} {'ratio':>6}")
        for fmt in a.formats.split(","):
            for bus in a.buses.split(","):
                samples = {side: [] for side in a.sides.split(",")}
                for _ in range(a.rounds):
                    for side in samples:
                        samples[side].append(self.measure(side, bus, fmt))
                for i, (name, what) in enumerate(ROWS.items()):
                    mid = {s: statistics.median(r[i] for r in v) for s, v in samples.items()}
                    ratio = mid["lodge"] / mid["tcg"] if "lodge" in mid and mid.get("tcg") else None
                    rows.append({"bus": bus, "format": fmt, "name": name, "unit": what[3], **mid, "ratio": ratio})
                    print(f"  {fmt + ' ' + bus + ': ' + name:<44} {mid.get('lodge', 0):10.1f} {mid.get('tcg', 0):10.1f} "
                          f"{ratio or 0:6.2f} {what[3]}", flush=True)
        with open(os.path.join(self.out, "fio.json"), "w") as f:
            json.dump({"engine": a.engine, "rounds": a.rounds, "seconds": a.seconds, "size_mib": a.size, "rows": rows}, f, indent=1)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("out")
    p.add_argument("--engine", default="jit")
    p.add_argument("--buses", default="virtio,ahci,nvme")
    p.add_argument("--formats", default="raw,vdi,qcow2")
    p.add_argument("--sides", default="lodge,tcg")
    p.add_argument("--seconds", type=int, default=5)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--size", type=int, default=256)
    p.add_argument("--cache", help="where the guest's image is kept (OUT_DIR/cache)")
    b = Bench(p.parse_args())
    try:
        b.go()
    finally:
        shutil.rmtree(b.tmp, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
