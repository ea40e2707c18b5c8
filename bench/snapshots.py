#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measure snapshots, restores, linked clones and forks of a Debian guest with 1 GiB of memory that is at work.

    bench/snapshots.py OUT_DIR [--rounds N] [--forks N] [--doc DOC.md]

The guest is tools/make-debian's (OUT_DIR/debian.img, made when it is not there). 600 MiB of its memory are random bytes,
and 60 MiB are rewritten all the time. How long it stood still is what the command reports, and beside it the longest gap
that a program in the guest sees that sleeps a millisecond at a time (the host's other work makes gaps of its own: the
longest of the same time without a snapshot stands beside it). The guest rests when it is forked. What is started runs when the command returns. Memory of a
copy: what is private to its process after a second. Writes OUT_DIR/snapshots.json.
"""
import argparse
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.dont_write_bytecode = True
sys.path.insert(0, HERE)
import report  # noqa: E402  (beside this file)

ROWS = {  # name: text, unit, at most
    "still": ("live snapshot: the guest stood still, as the command says", "ms", 50),
    "gap": ("the longest gap that the guest saw meanwhile", "ms", None),
    "usual": ("the longest gap of the same time without a snapshot", "ms", None),
    "complete": ("live snapshot: complete after", "s", None),
    "size": ("the file of its memory", "MiB", None),
    "start": ("`startvm` from such a snapshot, until it runs", "s", 0.5),
    "answer": ("the same, until ssh has an answer of the guest", "s", None),
    "clone": ("linked clone", "ms", 50),
    "fork": ("`lodge fork`, each copy", "ms", 100),
    "memory": ("each copy: memory of its own after a second", "MiB", 20),
}
GAPS = """use Time::HiRes qw(time sleep); my ($l, $m) = (time, 0); $SIG{USR1} = sub { printf "%.1f\\n", $m * 1000; $m = 0; };
$| = 1; for (;;) { sleep 0.001; my $t = time; $m = $t - $l if $t - $l > $m; $l = $t; }"""


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def private_mib(pid):
    text = open(f"/proc/{pid}/smaps_rollup").read()
    return sum(int(re.search(rf"^{k}:\s+(\d+)", text, re.M)[1]) for k in ("Private_Clean", "Private_Dirty")) / 1024


class Bench:
    def __init__(self, args):
        self.args, self.out = args, os.path.abspath(args.out)
        self.tmp = tempfile.mkdtemp(prefix="lodge-snapshots.")
        self.image, self.port = os.path.join(self.out, "debian.img"), free_port()
        if not os.path.exists(self.image):
            subprocess.run([os.path.join(HERE, "../tools/make-debian"), self.image], check=True)
        self.env = dict(os.environ, HOME=self.tmp, LODGE_HOME=self.tmp + "/lodge", LODGE_ENGINE=args.engine)
        self.samples, self.noise = {}, report.Noise()

    def run(self, program, *words):
        p = subprocess.run([os.path.join(self.out, "bin", program), *words], env=self.env, stdout=subprocess.PIPE,
                           stderr=subprocess.PIPE, text=True)
        if p.returncode:
            raise SystemExit(f"snapshots: {program} {' '.join(words)}: {p.stderr or p.stdout}")
        return p.stdout + p.stderr

    def vbm(self, *words):
        return self.run("VBoxManage", *words)

    def timed(self, program, *words):
        start = time.monotonic()
        said = self.run(program, *words)
        return time.monotonic() - start, said

    def ssh(self, command, patience=120):
        end = time.monotonic() + patience
        while True:
            p = subprocess.run(["ssh", "-i", self.image + ".key", "-p", str(self.port), "-o", "StrictHostKeyChecking=no", "-o",
                                "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-o", "ConnectTimeout=20",
                                "root@127.0.0.1", command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            if p.returncode != 255:
                return p.stdout
            if time.monotonic() > end:
                raise SystemExit(f"snapshots: the guest does not answer: {p.stderr}")
            time.sleep(0.2)

    def make(self):
        disk = self.tmp + "/deb.vdi"
        subprocess.run(["qemu-img", "convert", "-O", "vdi", self.image, disk], check=True)
        self.vbm("createvm", "--name", "deb", "--ostype", "Debian_64", "--register")
        self.vbm("modifyvm", "deb", "--memory", "1024", "--nic1", "nat", "--nictype1", "virtio", "--natpf1",
                 f"ssh,tcp,127.0.0.1,{self.port},,22", "--boot1", "disk")
        self.vbm("storagectl", "deb", "--name", "SATA", "--add", "sata")
        self.vbm("storageattach", "deb", "--storagectl", "SATA", "--port", "0", "--device", "0", "--type", "hdd", "--medium", disk)
        self.vbm("startvm", "deb", "--type", "headless")
        self.ssh("true", 600)
        self.ssh("mount -o remount,size=900m /dev/shm; head -c 600M /dev/urandom >/dev/shm/full")
        self.ssh("cat >/dev/shm/gaps.pl <<'X'\n" + GAPS + "\nX\n"
                 "perl /dev/shm/gaps.pl </dev/null >/dev/shm/gaps 2>&1 & echo $! >/dev/shm/pid\n"
                 "sh -c 'while :; do head -c 60M /dev/urandom >/dev/shm/busy; done' </dev/null >/dev/null 2>&1 & "
                 "echo $! >/dev/shm/busy.pid; sleep 2")

    def gap(self):
        """The longest gap since the last call, ms."""
        return float(self.ssh("kill -USR1 $(cat /dev/shm/pid); sleep 0.3; tail -n 1 /dev/shm/gaps"))

    def add(self, name, value):
        self.samples.setdefault(name, []).append(value)

    def snapshots(self):
        for n in range(self.args.rounds):
            self.gap()
            took, said = self.timed("VBoxManage", "--detailed-progress", "snapshot", "deb", "take", f"s{n}", "--live")
            self.add("gap", self.gap())
            self.add("complete", took)
            self.add("still", int(re.search(r"stood still for (\d+)", said)[1]))
            states = [os.path.join(d, f) for d, _, fs in os.walk(self.tmp) for f in fs if f.endswith((".sav", ".state"))]
            if states:
                self.add("size", os.path.getsize(max(states, key=os.path.getmtime)) / (1 << 20))
            self.gap()
            time.sleep(took)
            self.add("usual", self.gap())
        for n in range(self.args.rounds):
            self.vbm("controlvm", "deb", "poweroff")
            self.vbm("snapshot", "deb", "restore", "s0")
            took, _ = self.timed("VBoxManage", "startvm", "deb", "--type", "headless")
            self.add("start", took)
            start = time.monotonic()
            self.ssh("true")
            self.add("answer", took + time.monotonic() - start)
            self.add("clone", 1000 * self.timed("VBoxManage", "clonevm", "deb", "--name", f"c{n}", "--register", "--snapshot", "s0",
                                                "--options", "link")[0])

    def forks(self):
        """What a busy guest writes after the fork would count as the copy's, so it rests."""
        self.ssh("kill $(cat /dev/shm/busy.pid) $(cat /dev/shm/pid); sleep 1")
        def pids():
            return set(subprocess.run(["pgrep", "-f", "lodge-vm.*" + self.tmp], stdout=subprocess.PIPE, text=True).stdout.split())

        self.run("lodge", "fork", "deb", "--count", "1", "--name", "first")  # copies the memory once
        for n in range(self.args.rounds):
            before = pids()
            took, _ = self.timed("lodge", "fork", "deb", "--count", str(self.args.forks), "--name", f"f{n}", "--verbose")
            self.add("fork", 1000 * took / self.args.forks)
            time.sleep(1)
            for pid in pids() - before:
                self.add("memory", private_mib(pid))
            for i in range(self.args.forks):
                self.vbm("controlvm", f"f{n}-{i + 1}", "poweroff")

    def close(self):
        names = re.findall(r'^"(.*)" \{', self.vbm("list", "runningvms"), re.M)
        for name in names:
            self.vbm("controlvm", name, "poweroff")
        shutil.rmtree(self.tmp, ignore_errors=True)

    def go(self):
        self.make()
        self.snapshots()
        self.forks()
        rows = []
        for name, (text, unit, most) in ROWS.items():
            v = self.samples.get(name)
            if not v:
                continue
            rows.append({"name": name, "what": text, "unit": unit, "median": statistics.median(v), "least": min(v), "most": max(v),
                         "goal": most, "samples": v})
            print(f"  {text:<64} {report.number(statistics.median(v)):>7} {report.number(min(v)):>7} to {report.number(max(v)):>7} {unit}"
                  + (f"  (at most {most})" if most else ""), flush=True)
        doc = {"engine": self.args.engine, "rounds": self.args.rounds, "forks": self.args.forks, "machine": report.machine(),
               "date": time.strftime("%Y-%m-%d"), "noise": self.noise.so_far(), "rows": rows}
        with open(self.out + "/snapshots.json", "w") as f:
            json.dump(doc, f, indent=1)
        if self.args.doc:
            report.between_marks(self.args.doc, "snapshots", markdown(doc))
        return doc


def markdown(doc):
    lines = [f"Engine `{doc['engine']}`, {doc['rounds']} rounds, {doc['forks']} copies a fork, {doc['date']}. "
             f"{report.host_and_load(doc)}.", "", "| | median | least to most | at most |", "|---|--:|--:|--:|"]
    for r in doc["rows"]:
        lines.append(f"| {r['what']} | {report.number(r['median'])} {r['unit']} | {report.number(r['least'])} to "
                     f"{report.number(r['most'])} | {str(r['goal']) + ' ' + r['unit'] if r['goal'] else ''} |")
    return "\n".join(lines) + "\n"


def parser():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("out")
    p.add_argument("--engine", default="jit")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--forks", type=int, default=4)
    p.add_argument("--doc", help="the document that gets the table")
    return p


if __name__ == "__main__":
    report.measure(Bench(parser().parse_args()))
