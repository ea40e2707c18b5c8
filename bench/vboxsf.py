#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Shared folders: a source tree of 10,000 files read and written by a stock kernel, vboxsf here against 9p under QEMU's
TCG, pair by pair on the same host.

    bench/vboxsf.py OUT [--files N] [--pairs N] [--only lodge|qemu]

Needs OUT/demo.iso.vmlinuz and .initrd (tools/make-iso) and OUT/cache; the modules that the initial RAM disk lacks are
taken from the kernel's package. The tree: N files of 0.2 to 20 KiB, 6 KiB in the mean, 40 a directory. Reading: tar
into memory. Writing: tar out of memory into another directory, then sync. Times are the guest's (CLOCK_MONOTONIC),
which both machines keep in step with the host's. "cpu" is
the processor time of the whole run on the host, boot and all. What is said last are medians.
"""
import argparse
import base64
import glob
import os
import random
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile

SCRIPT = """
cd /
for m in netfs fscache 9pnet 9pnet_virtio 9p; do [ -f /extra/$m.ko ] && insmod /extra/$m.ko 2>/dev/null; done
mkdir -p /mnt
mount -t tmpfs -o size=400m tmpfs /tmp
%s || { echo BENCH-FAILED; exit; }
now() { cut -d' ' -f1 /proc/uptime; }
a=$(now); tar cf /tmp/t.tar -C /mnt/tree .; b=$(now)
echo "BENCH-READ $a $b $(wc -c </tmp/t.tar)"
mkdir /mnt/new
a=$(now); tar xf /tmp/t.tar -C /mnt/new; sync; b=$(now)
echo "BENCH-WRITE $a $b"
a=$(now); find /mnt/tree -type f -exec stat -c %%s {} + >/tmp/sizes; b=$(now)
echo "BENCH-STAT $a $b $(wc -l </tmp/sizes)"
"""


def make_tree(path, files):
    rng = random.Random(1)
    for i in range(files):
        d = os.path.join(path, f"lib{i // 400}", f"part{i // 40}")
        if i % 40 == 0:
            os.makedirs(d)
        size = min(20480, max(200, int(rng.expovariate(1 / 6000))))
        with open(os.path.join(d, f"source_{i}.c"), "wb") as f:
            f.write(rng.randbytes(size))


def extra_modules(out, work):
    """A second archive for the initial RAM disk: what 9p needs."""
    deb = max(glob.glob(f"{out}/cache/amd64/archives/linux-image-*-amd64_*.deb"), key=lambda p: "cloud" not in p)
    subprocess.run(["dpkg-deb", "-x", deb, f"{work}/kernel"], check=True)
    extra = f"{work}/root/extra"
    os.makedirs(extra)
    for name in ("netfs", "fscache", "9pnet", "9pnet_virtio", "9p"):
        for ko in glob.glob(f"{work}/kernel/lib/modules/*/kernel/**/{name}.ko", recursive=True):
            shutil.copy(ko, extra)
    subprocess.run("find . | cpio -o -H newc --quiet | gzip -1 > ../extra.gz", shell=True, check=True, cwd=f"{work}/root")
    with open(f"{work}/initrd", "wb") as f:
        for part in (f"{out}/demo.iso.initrd", f"{work}/extra.gz"):
            data = open(part, "rb").read()
            f.write(data + b"\0" * (-len(data) % 4))


def run(kind, out, work, share):
    mount = "mount -t vboxsf src /mnt" if kind == "lodge" else \
        "mount -t 9p -o trans=virtio,version=9p2000.L,msize=131072 src /mnt"
    script = base64.b64encode((SCRIPT % mount).encode()).decode()
    append = f"console=ttyS0 quiet lodge.sh={script}"
    log = f"{work}/{kind}.log"
    if kind == "lodge":
        cmd = [f"{out}/bin/lodge", "boot", "--memory", "768", "--kernel", f"{out}/demo.iso.vmlinuz", "--initrd",
               f"{work}/initrd", "--append", append, "--serial", f"file:{log}", "--display", "none", "--share",
               f"src={share}"]
    else:
        cmd = ["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-m", "768", "-kernel", f"{out}/demo.iso.vmlinuz",
               "-initrd", f"{work}/initrd", "-append", append, "-serial", f"file:{log}", "-display", "none",
               "-no-reboot", "-nic", "none", "-virtfs",
               f"local,path={share},mount_tag=src,security_model=none,multidevs=remap"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(cmd, check=False, timeout=600, stdin=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    text = open(log, errors="replace").read()
    times = {"cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime}
    for word, a, b in re.findall(r"BENCH-(\w+) ([\d.]+) ([\d.]+)", text):
        times[word.lower()] = float(b) - float(a)
    if len(times) != 4:
        sys.exit(f"{kind}: the guest did not finish; its console is\n{text[-2000:]}")
    shutil.rmtree(f"{share}/new")
    return times


def main():
    p = argparse.ArgumentParser()
    p.add_argument("out")
    p.add_argument("--files", type=int, default=10000)
    p.add_argument("--pairs", type=int, default=3)
    p.add_argument("--only", choices=("lodge", "qemu"))
    o = p.parse_args()
    kinds = [o.only] if o.only else ["lodge", "qemu"]
    work = tempfile.mkdtemp(prefix="lodge-vboxsf.")
    try:
        extra_modules(o.out, work)
        share = f"{work}/share"
        make_tree(f"{share}/tree", o.files)
        times = {}
        for n in range(o.pairs):
            for kind in kinds:
                t = run(kind, o.out, work, share)
                print(f"pair {n + 1} {kind:5}: " + ", ".join(f"{w} {t[w]:.2f} s" for w in ("read", "write", "stat", "cpu")) +
                      f", load {os.getloadavg()[0]:.1f}", flush=True)
                for w, s in t.items():
                    times.setdefault((kind, w), []).append(s)
        if len(kinds) == 2:
            for w in ("read", "write", "stat", "cpu"):
                ours, theirs = (statistics.median(times[kind, w]) for kind in kinds)
                print(f"{w:5}: vboxsf {ours:.2f} s, 9p under TCG {theirs:.2f} s, {theirs / ours:.2f} times as fast")
    finally:
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
