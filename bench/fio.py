#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measure a guest's disks with fio: Lodge beside QEMU's TCG with the same image format, formats beside one another.

    bench/fio.py OUT_DIR [--engine E] [--buses LIST] [--formats LIST] [--rows PATTERN,...] [--seconds N] [--rounds N]
                         [--sides LIST] [--size MIB] [--doc DOC.md]

The guest is a Debian with a stock kernel from OUT_DIR/cache/fio.img, made the first time (mmdebstrap; a few minutes), on
a disk of its own. What is measured are other disks, one for each format, all on one bus (virtio, ahci, nvme) and all
allocated and written before, through fio's libaio with O_DIRECT: sequential reads and writes of 128 KiB, random ones of
4 KiB at depth 1 and 16. One boot measures each row on one format after the other, so that what else the host does
troubles them alike; sides alternate by boots. Both leave caching to the host's page cache (QEMU: cache=writeback).
Figures are medians of the rounds, by the guest's clock; beside them stands how much of the host's processors one transfer
took, guest and all, which other work on the host changes less. Writes OUT_DIR/fio.json; --doc puts the table into DOC.md between
its marks.
"""
import argparse
import fnmatch
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.dont_write_bytecode = True
sys.path.insert(0, HERE)
import guest  # noqa: E402  (beside this file)
import report  # noqa: E402

TCG_GOAL, RAW_GOAL = 2.0, 0.8
BOOTS = 8  # of a side whose disk stalls
COLUMNS = ("lodge", "tcg", "ratio", "of_raw", "lodge_cpu_us", "tcg_cpu_us", "cpu_ratio", "cpu_of_raw")
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
cat >/tmp/jobs <<'JOBS'
@JOBS@
JOBS
for size in @SIZES@; do
	for i in $(seq 100); do disk=$(lsblk -dnbo NAME,SIZE | awk -v s=$size '$2 == s { print $1 }'); [ -n "$disk" ] && break; sleep 0.1; done
	sed -i "s,@$size@,/dev/$disk," /tmp/jobs
done
cd /tmp; echo 'echo "FIO $*" >/dev/ttyS0' >say
for job in $(sed -n 's/^\\[\\(.*-.*\\)\\]$/\\1/p' jobs); do
	fio --output-format=terse --terse-version=3 --section="$job" jobs |
		awk -F';' '/^3;/ { print "FIO row", $3, $7 + $48, $8 + $49, ($6 + $47) }'
done
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
        run(["mmdebstrap", "--quiet", "--variant=minbase", "--skip=output/dev", "--aptopt=APT::Install-Recommends \"false\"",
             "--include=linux-image-amd64,initramfs-tools,zstd,kmod,fio,util-linux,mawk",
             "--customize-hook=rm -rf \"$1\"/var/cache/apt/* \"$1\"/var/lib/apt/lists/*", "bookworm",
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


def ticks(pid):
    """Seconds of processor time that a process has had."""
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Bench:
    def __init__(self, args):
        self.args, self.out = args, os.path.abspath(args.out)
        self.formats, self.sides = args.formats.split(","), args.sides.split(",")
        self.rows = {n: w for n, w in ROWS.items() if any(fnmatch.fnmatch(n, p) for p in args.rows.split(","))}
        self.noise, self.results = report.Noise(), []
        self.tmp = tempfile.mkdtemp(prefix="lodge-fio.")
        self.image = os.path.join(os.path.abspath(args.cache or self.out + "/cache"), "fio.img")
        os.makedirs(os.path.dirname(self.image), exist_ok=True)
        if not os.path.exists(self.image):
            print("making the guest's image", flush=True)
            make_image(self.image)

    def close(self):
        shutil.rmtree(self.tmp, ignore_errors=True)

    def size(self, fmt):
        """Of a disk in bytes: each has another, by which the guest knows it."""
        return self.args.size + self.formats.index(fmt) << 20

    def disk(self, fmt):
        """An image with every block allocated and written."""
        path = f"{self.tmp}/disk.{fmt}"
        if os.path.exists(path):
            return path
        raw = path if fmt == "raw" else self.tmp + "/data"
        with open(raw, "wb") as f:
            for _ in range(self.size(fmt) >> 20):
                f.write(os.urandom(1 << 20))
        if fmt != "raw":
            run(["qemu-img", "convert", "-f", "raw", "-O", fmt, raw, path])
            os.unlink(raw)
        return path

    def jobs(self, keys):
        lines = ["[global]", "direct=1", "ioengine=libaio", "thread=1", "time_based=1", f"runtime={self.args.seconds}"]
        for i, fmt in keys:
            rw, bs, depth, _ = list(self.rows.values())[i]
            lines += [f"[{i}-{fmt}]", "stonewall", f"filename=@{self.size(fmt)}@", f"rw={rw}", f"bs={bs}", f"iodepth={depth}",
                      f"exec_prerun=sh /tmp/say begin {i}-{fmt}", f"exec_postrun=sh /tmp/say end {i}-{fmt}"]
        return "\n".join(lines)

    def root(self, keys):
        """The guest's disk with what it is to do."""
        root, init = self.tmp + "/root.img", self.tmp + "/fio-init"
        subprocess.run(["cp", "--sparse=always", self.image, root], check=True)
        with open(init, "w") as f:
            f.write(INIT.replace("@JOBS@", self.jobs(keys)).replace("@SIZES@", " ".join(str(self.size(f)) for f in self.formats)))
        with open(self.tmp + "/commands", "w") as f:
            f.write(f"rm /fio-init\nwrite {init} /fio-init\nset_inode_field /fio-init mode 0100755\n")
        run([shutil.which("debugfs") or "/sbin/debugfs", "-w", "-f", self.tmp + "/commands", root])
        return root

    append = "root=LABEL=fio ro console=ttyS0 quiet init=/fio-init"

    def lodge(self, bus, root):
        disks = [w for f in self.formats for w in ("--disk", f"{self.disk(f)},bus={bus},format={f}")]
        return [os.path.join(self.out, "bin/lodge"), "boot", "--engine", self.args.engine, "--memory", "512", "--kernel",
                self.image + ".vmlinuz", "--initrd", self.image + ".initrd", "--append", self.append, "--serial",
                "stdio", "--display", "none", "--nic", "none", "--disk", f"{root},bus=virtio,format=raw", *disks]

    def tcg(self, bus, root):
        devices = ["-device", "ahci,id=a"] if bus == "ahci" else []
        for i, f in enumerate(self.formats):
            device = {"virtio": f"virtio-blk-pci,drive=d{i}", "ahci": f"ide-hd,bus=a.{i},drive=d{i}",
                      "nvme": f"nvme,serial=fio{i},drive=d{i}"}[bus]
            devices += ["-drive", f"file={self.disk(f)},if=none,id=d{i},format={f},cache=writeback", "-device", device]
        return ["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-m", "512", "-kernel", self.image + ".vmlinuz", "-initrd",
                self.image + ".initrd", "-append", self.append, "-serial", "stdio", "-monitor", "none", "-display", "none", "-no-reboot",
                "-nic", "none", "-drive", f"file={root},if=virtio,format=raw", *devices]

    def measure(self, side, bus):
        """{(row, format): (figure, microseconds of the host's processors for a transfer)}. QEMU 7.2's NVMe loses a doorbell now and
        then, and from there on does nothing but wait for the guest's time-outs of 30 s (the guest's kernel: "I/O 3 QID 1 timeout,
        completion polled"): what such a boot has not measured is left to another, the row that stalled comes last there. What has
        no figure after BOOTS boots is left out."""
        found, left = {}, [(i, fmt) for i in range(len(self.rows)) for fmt in self.formats]
        for _ in range(BOOTS):
            stalled = self.boot(side, bus, left, found)
            left = [k for k in left if k not in found and k != stalled] + [stalled] * bool(stalled)
            if not left:
                break
            print(f"  {side} on {bus}: the disk stalled in '{list(self.rows)[stalled[0]]}' on {stalled[1]}; "
                  f"{len(left)} rows are left to another boot", flush=True)
        return found

    def boot(self, side, bus, keys, found):
        """Adds the figures of one boot to `found`; the row that its disk stalled in, or None."""
        kinds, blocks = list(self.rows.values()), {"4k": 4, "128k": 128}
        used, begun, said, stalled = {}, {}, {}, None
        with open(self.out + "/fio.log", "a") as log:
            lines = guest.Lines(getattr(self, side)(bus, self.root(keys)), self.args.patience, log)
            try:
                for now, text in lines:
                    m = re.search(r"FIO (begin|end|row) (\d+)-(\w+)(?: (\d+) (\d+) (\d+))?", text)
                    if not m:
                        continue
                    key = int(m[2]), m[3]
                    if m[1] == "begin":
                        begun[key] = now, ticks(lines.process.pid)
                    elif m[1] == "end" and key in begun:
                        used[key] = ticks(lines.process.pid) - begun[key][1]
                        if now - begun[key][0] > 20 + 3 * self.args.seconds:
                            stalled = key
                            break
                    elif m[1] == "row" and m[4]:
                        said[key] = [int(m[i]) for i in (4, 5, 6)]
            finally:
                lines.close()
        good = keys[: keys.index(stalled)] if stalled else keys
        if set(good) - set(said) or set(good) - set(used):
            raise SystemExit(f"fio: {side} on {bus}: its last lines are {lines.tail[-5:]}; all are in {self.out}/fio.log")
        for k in good:
            rate, per_second, kib = said[k]
            rw, bs, depth, unit = kinds[k[0]]
            found[k] = (rate * 1024 / 1e6 if unit == "MB/s" else per_second, used[k] * 1e6 / max(1, kib / blocks[bs]))
        return stalled

    def bus(self, bus):
        samples = {side: [] for side in self.sides}
        for n in range(self.args.rounds):
            for side in self.sides[:: 1 if n % 2 == 0 else -1]:
                samples[side].append(self.measure(side, bus))
        for i, (name, what) in enumerate(self.rows.items()):
            mids = {f: {s: self.middle([r[i, f] for r in v if (i, f) in r]) for s, v in samples.items()} for f in self.formats}
            for fmt, mid in mids.items():
                row = {"bus": bus, "format": fmt, "name": name, "unit": what[3], "samples": {
                    s: [r[i, fmt] for r in v if (i, fmt) in r] for s, v in samples.items()}}
                for k, m in mid.items():
                    row[k], row[k + "_cpu_us"] = m or (None, None)
                ours, theirs, raw = mid.get("lodge"), mid.get("tcg"), mids.get("raw", {}).get("lodge")
                row["ratio"], row["cpu_ratio"] = (ours[0] / theirs[0], theirs[1] / ours[1]) if ours and theirs else (None, None)
                row["of_raw"], row["cpu_of_raw"] = (ours[0] / raw[0], raw[1] / ours[1]) if ours and raw and fmt != "raw" else (None, None)
                self.results.append(row)
                print(f"  {bus + ', ' + fmt + ': ' + name:<46} " + " ".join(
                    f"{report.number(row.get(k)):>{w}}" for k, w in zip(COLUMNS, (8, 8, 5, 5, 6, 6, 5, 5))) + f"  {what[3]}", flush=True)

    @staticmethod
    def middle(samples):
        return tuple(statistics.median(x) for x in zip(*samples)) if samples else None

    def go(self):
        print(f"  {'fio in a guest':<46} {'Lodge':>8} {'TCG':>8} {'x TCG':>5} {'/raw':>5} {'us CPU':>6} {'TCG':>6} {'x TCG':>5} "
              f"{'/raw':>5}  goals: {TCG_GOAL} x TCG, {RAW_GOAL} of raw")
        try:
            for bus in self.args.buses.split(","):
                self.bus(bus)
        finally:
            a = self.args
            self.doc = {"engine": a.engine, "rounds": a.rounds, "seconds": a.seconds, "size_mib": a.size, "machine": report.machine(),
                        "date": time.strftime("%Y-%m-%d"), "noise": self.noise.so_far(), "goals": {"tcg": TCG_GOAL, "raw": RAW_GOAL},
                        "rows": self.results}
            with open(os.path.join(self.out, "fio.json"), "w") as f:
                json.dump(self.doc, f, indent=1)
        if self.args.doc:
            report.between_marks(self.args.doc, "fio", markdown(self.doc))
        return self.doc


def markdown(doc):
    lines = [f"Engine `{doc['engine']}`, medians of {doc['rounds']} rounds of {doc['seconds']} s a row, disks of {doc['size_mib']} MiB, "
             f"{doc['date']}. {report.host_and_load(doc)}.", "",
             "| bus, format | row | Lodge | QEMU TCG | of TCG | of raw | processor time | TCG's | of TCG | of raw |",
             "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|"]
    for r in doc["rows"]:
        cell = [f"{r[k]:.0f} {r['unit']}" if r.get(k) else "-" for k in COLUMNS[:2]]
        cell += [f"{r[k]:.2f} ×" if r.get(k) else "-" for k in COLUMNS[2:4]]
        cell += [f"{r[k]:.0f} µs" if r.get(k) else "-" for k in COLUMNS[4:6]]
        cell += [f"{r[k]:.2f} ×" if r.get(k) else "-" for k in COLUMNS[6:]]
        lines.append(f"| {r['bus']}, {r['format']} | {r['name']} | " + " | ".join(cell) + " |")
    return "\n".join(lines) + "\n"


def parser():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("out")
    p.add_argument("--engine", default="jit")
    p.add_argument("--buses", default="virtio,ahci,nvme")
    p.add_argument("--formats", default="raw,vdi,qcow2")
    p.add_argument("--rows", default="*", help="only the rows that match (shell patterns)")
    p.add_argument("--sides", default="lodge,tcg")
    p.add_argument("--seconds", type=int, default=3)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--size", type=int, default=256, help="MiB")
    p.add_argument("--cache", help="where the guest's image is kept (OUT_DIR/cache)")
    p.add_argument("--patience", type=int, default=300, help="seconds that a guest may be silent")
    p.add_argument("--doc", help="the document that gets the table")
    return p


def measure(words):
    return report.measure(Bench(parser().parse_args(words)))


if __name__ == "__main__":
    measure(sys.argv[1:])
