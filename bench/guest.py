# SPDX-License-Identifier: Apache-2.0
"""The same work in the same Debian guest: under Lodge, under QEMU's TCG, and natively out of the image's root.

A boot runs all rows of bench/guest/rows; the guest says on its serial port where a row begins and ends, and the host's
clock measures. All that differs between the sides is who runs the guest.
"""
import collections
import ctypes
import fnmatch
import glob
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
PORT = 8097  # of the web server: in the guest, and on the host when the row runs natively
MEMORY = 512

# goal, stretch: times as fast as TCG at least. computes: user code, whose time is also compared with the bare host's.
Row = collections.namedtuple("Row", "what goal stretch computes", defaults=(None, None, False))
ROWS = {  # in the order of the table
    "direct": Row("power-on to user space, direct boot", 2.5, 5),
    "bios": Row("power-on to user space, BIOS and GRUB", 2, 4),
    "shell-loop": Row("shell loop (dash)", 5, 10, True),
    "processes": Row("fork + exec + wait", 3, 6),
    "syscalls": Row("1-byte read and write", 3, 5),
    "switches": Row("context switches (a byte through two pipes)"),
    "page-faults": Row("page faults (fresh anonymous memory)"),
    "interrupts": Row("timer interrupts, 10,000"),
    "ipis": Row("interrupts between 2 CPUs (membarrier)"),
    "sha256sum": Row("sha256sum", 4, 8, True),
    "md5sum": Row("md5sum", 4, 8, True),
    "gzip": Row("gzip -6", 4, 8, True),
    "xz": Row("xz -2", 4, 8, True),
    "openssl-aes": Row("openssl speed aes-128-gcm, 100 MB", 4, 8, True),
    "openssl-rsa": Row("openssl speed rsa2048, 100 signatures", 4, 8, True),
    "7z-b": Row("7z b, for 1000 of its million instructions", 4, 8, True),
    "python3": Row("python3", 4, 8, True),
    "perl": Row("perl", 4, 8, True),
    "sqlite-memory": Row("sqlite3, in memory", 4, 8, True),
    "sqlite-disk": Row("sqlite3, on disk", 4, 8),
    "gcc": Row("gcc -O2 of stb_image_write", 4, 8, True),
    "matrix": Row("matrix product, scalar", 8, 15, True),
    "matrix-avx2": Row("matrix product, AVX2", 8, 15, True),
    "nbody": Row("n-body, scalar", 8, 15, True),
    "nbody-avx2": Row("n-body, AVX2", 8, 15, True),
    "stride-sort": Row("sort with long strides", 1.5, 2.5, True),
    "random-list": Row("random list", 1.5, 2.5, True),
    "web": Row("web server through NAT, 1000 requests", 3, 6),
    "make-1": Row("make -j2, 1 CPU"),
    "make-2": Row("make -j2, 2 CPUs"),
}
NATIVE_GOAL, NATIVE_STRETCH = 2, 1.2  # times slower than native at most, where a row computes
MEAN_GOAL, MEAN_STRETCH = 4, 8
CPU_GOAL = 1.6  # what a second CPU makes of the parallel make
# A RATE line becomes the seconds that this much of it takes.
RATE_AMOUNT = {"openssl-aes": 100e6, "openssl-rsa": 100, "7z-b": 1000, "interrupts": 10000}
# What one event of a row is called in the table of costs.
EVENTS = {
    "syscalls": "system call (1 byte read or written)",
    "switches": "context switch (and the byte through the pipe)",
    "page-faults": "page fault (a fresh page)",
    "interrupts": "timer interrupt (the kernel's profiling timer; median of the gaps in a loop)",
    "ipis": "interrupt of another CPU, until it has answered (membarrier, 2 CPUs)",
    "processes": "fork, exec and wait",
}
# What is booted for which rows. Making has boots of its own, so that both find nothing translated before.
Part = collections.namedtuple("Part", "what cpus rows")
PARTS = {
    "make-1": Part("make with 1 CPU", 1, {"make-1"}),
    "make-2": Part("make and interrupts with 2 CPUs", 2, {"make-2", "ipis"}),
    "bios": Part("BIOS and GRUB", 1, {"bios"}),
}
PARTS = {"all": Part("most rows", 1, set(ROWS).difference(*(p.rows for p in PARTS.values()))), **PARTS}
LONG = 8  # how much longer than TCG the others run the rows in which TCG is more than a hundred times slower


class Failed(Exception):
    pass


# ---- what is booted ----


def run(cmd, **kw):
    done = subprocess.run(cmd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **kw)
    if done.returncode:
        raise Failed(f"{' '.join(cmd[:4])}: status {done.returncode}\n{done.stdout[-2000:]}")
    return done.stdout


class Image:
    """Debian on a disk and as files (bench/make-image), and what the rows need on a second disk."""

    def __init__(self, cache, tmp, scale, rows):
        self.disk = os.path.join(cache, "bench.img")
        self.kernel, self.initrd, self.root = (self.disk + s for s in (".vmlinuz", ".initrd", ".root"))
        self.tmp, self.job = tmp, os.path.join(tmp, "job")
        recipe = os.path.join(HERE, "make-image")
        made_by = max(os.path.getmtime(f) for f in (recipe, os.path.join(HERE, "../tools/make-disk")))
        if not os.path.exists(self.disk) or os.path.getmtime(self.disk) < made_by:
            print("  (making the guest's image out of Debian's packages: some minutes, once)", flush=True)
            os.makedirs(os.path.dirname(self.disk), exist_ok=True)
            run([recipe, self.disk])
        self.fill_job(scale, rows)

    def fill_job(self, scale, rows):
        shutil.copytree(os.path.join(HERE, "guest"), self.job)
        os.makedirs(self.job + "/src")
        self.write_sources()
        with open(self.job + "/data", "wb") as f:
            f.write(self.text(4 << 20))
        self.options = f"SCALE={scale}\nROWS='{' '.join(rows)}'\n"
        # The image's own compiler makes what all sides run.
        self.inside("gcc -O2 -fno-math-errno -static -pthread -o /bench/work /bench/work.c -lm")

    def write_sources(self):
        """Real C files for the compiler: Debian's libstb-dev, whose headers hold whole libraries."""
        units = ("image", "image_write", "image_resize", "sprintf", "rect_pack", "dxt")
        for name in units:
            with open(f"{self.job}/src/{name}.c", "w") as f:
                f.write(f"#define STB_{name.upper()}_IMPLEMENTATION\n#include <stb/stb_{name}.h>\n")
        with open(self.job + "/src/Makefile", "w") as f:
            f.write("all:" + "".join(f" $(O)/{name}.o" for name in units) +
                    "\n$(O)/%.o: %.c\n\t@mkdir -p $(O)\n\tgcc -w -c -o $@ $<\n")

    def text(self, size):
        """The same megabytes for everybody: Python's own library, in order."""
        parts = (open(p, "rb").read() for p in sorted(glob.glob(self.root + "/usr/lib/python3*/**/*.py", recursive=True)))
        return b"".join(parts)[:size]

    def configure(self, part, long):
        with open(self.job + "/config", "w") as f:
            f.write(f"PART={part}\nLONG={long}\n" + self.options)

    def job_disk(self, part, long):
        """The second disk: an ext4 that has the rows and is written to. A new one for every boot."""
        self.configure(part, long)
        path = os.path.join(self.tmp, "job.img")
        if os.path.exists(path):
            os.unlink(path)
        env = dict(os.environ, PATH=os.environ["PATH"] + ":/sbin:/usr/sbin")
        run(["mke2fs", "-q", "-t", "ext4", "-L", "bench", "-d", self.job, path, "64M"], env=env)
        return path

    def inside(self, script, **kw):
        return run(self.native_command(script), **kw)

    def native_command(self, script):
        """A shell in the image's root, in name spaces of its own so that nothing of it stays mounted on the host."""
        root, job = self.root, self.job
        enter = (f"mount --bind {job} {root}/bench && mount -t tmpfs tmp {root}/tmp && mount -t tmpfs run {root}/run && "
                 f"mount --rbind /dev {root}/dev && mount -t proc proc {root}/proc && "
                 f"exec chroot {root} /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin sh -c \"$1\"")
        user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
        return ["unshare", *user, "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", enter, "sh", script]

    def program(self, name):
        """A program of the image on the host, by the image's own dynamic linker."""
        return [self.root + "/lib64/ld-linux-x86-64.so.2", "--library-path", self.root + "/usr/lib/x86_64-linux-gnu",
                self.root + "/usr/bin/" + name]


# ---- who runs it ----


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Lodge:
    key, long = "lodge", LONG
    counters = True  # printed when the machine ends

    def __init__(self, image, binary, engine):
        self.image, self.binary, self.engine = image, binary, engine

    def command(self, cpus, direct, job, port):
        cmd = [self.binary, "boot", "--engine", self.engine, "--memory", str(MEMORY), "--cpus", str(cpus), "--display", "none",
               "--stats", "--serial", "stdio", "--disk", f"{self.image.disk},bus=virtio,readonly=on"]
        if job:
            cmd += ["--disk", f"{job},bus=virtio", "--nic", f"nat,model=virtio,hostfwd=tcp:127.0.0.1:{port}-:{PORT}"]
        return cmd + (["--kernel", self.image.kernel, "--initrd", self.image.initrd, "--append", LINE] if direct else [])


class Tcg:
    key, long, counters = "tcg", 1, False

    def __init__(self, image):
        self.image = image

    def command(self, cpus, direct, job, port):
        cmd = ["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-m", str(MEMORY), "-smp", str(cpus), "-display", "none",
               "-serial", "stdio", "-monitor", "none", "-no-reboot",
               "-drive", f"file={self.image.disk},if=virtio,format=raw,readonly=on,file.locking=off"]
        if job:
            cmd += ["-drive", f"file={job},if=virtio,format=raw",
                    "-nic", f"user,model=virtio-net-pci,hostfwd=tcp:127.0.0.1:{port}-:{PORT}"]
        else:
            cmd += ["-nic", "none"]
        return cmd + (["-kernel", self.image.kernel, "-initrd", self.image.initrd, "-append", LINE] if direct else [])


LINE = "root=LABEL=lodge-bench ro console=ttyS0,115200 quiet init=/bench-init"


# ---- one run: lines with the time at which they came ----


def die_with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: nothing stays when the benchmark is killed


class Lines:
    """The lines of a process, each with the host's clock; Failed when none comes for `patience` seconds."""

    def __init__(self, cmd, patience, log, prepare=lambda: None):
        self.patience, self.log, self.tail = patience, log, []
        log.write(f"# {' '.join(cmd)}\n")

        def before_exec():
            die_with_parent()
            prepare()

        self.start = time.monotonic()
        self.process = subprocess.Popen(cmd, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                        preexec_fn=before_exec)

    def __iter__(self):
        rest, fd = b"", self.process.stdout.fileno()
        while True:
            if not select.select([fd], [], [], self.patience)[0]:
                raise Failed(f"nothing for {self.patience} s; last: {self.tail[-3:]}")
            data, now = os.read(fd, 65536), time.monotonic()
            if not data:
                return
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                text = line.decode(errors="replace").strip()
                self.tail = self.tail[-9:] + [text]
                self.log.write(f"{now - self.start:9.3f} {text}\n")
                yield now, text

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


class Counters:
    """What `lodge boot --stats` prints: NAME NUMBER TEXT, of every CPU; whatever the names are."""

    def __init__(self):
        self.begun, self.lines = False, {}

    def read(self, text):
        if re.match(r"engine \w+ \(", text):
            self.begun = True
        m = re.match(r"(\S.*?)\s+(\d+(?:\.\d+)?)(?:\s+(.*))?$", text)
        if self.begun and m:
            key = m[1], m[3] or ""
            self.lines[key] = self.lines.get(key, 0) + (float(m[2]) if "." in m[2] else int(m[2]))

    def as_list(self):
        return [{"name": k[0], "text": k[1], "value": v} for k, v in self.lines.items()]


class Guest:
    """What one run of the rows said."""

    def __init__(self, image, seconds):
        self.image, self.web_seconds = image, seconds
        self.rows, self.sums, self.errors, self.drift = {}, {}, {}, 0.0
        self.events, self.times, self.counters = {"interrupts": RATE_AMOUNT["interrupts"]}, {}, Counters()

    def follow(self, lines, port, last="BENCH off", counters=False):
        """Up to the line `last`; with counters, up to the end of the machine, which prints them."""
        began, off = {}, False
        for now, text in lines:
            if off:
                self.counters.read(text)
                continue
            word = re.search(r"(BENCH|BEGIN|END|RATE|SUM|EVENTS|TIMES) (\S+) ?(.*)", text)
            if not word:
                continue
            kind, name, rest = word.groups()
            if kind == "BENCH" and name == "user-space":
                self.rows["direct"] = now - lines.start
            elif kind == "BEGIN":
                began[name] = now, float(rest)
                if name == "web":
                    self.load_web(port)
            elif kind == "END" and name in began:
                self.end(name, now, began[name], rest.split())
            elif kind == "END":
                self.errors[name] = "did not begin"
            elif kind == "SUM":
                self.sums[name] = rest
            elif kind == "EVENTS":
                self.events[name] = int(rest)
            elif kind == "TIMES":
                self.times[name] = int(rest)
            elif kind == "RATE":
                self.rate(name, rest)
            if f"{kind} {name}" == last:
                if name == "off" and rest != "0":
                    self.errors["rows"] = f"their script ended with status {rest}"
                off, lines.patience = True, 30
                if not counters:
                    break
        for name in set(self.times) & set(self.rows):
            self.rows[name] /= self.times[name]

    def rate(self, name, rest):
        try:
            self.rows[name] = RATE_AMOUNT[name] / float(rest)
        except (ValueError, ZeroDivisionError):
            self.errors[name] = f"it said '{rest}' instead of how fast it is"

    def end(self, name, now, begin, rest):
        guest, status = float(rest[0]), int(rest[1])
        seconds = now - begin[0]
        if status:
            self.errors[name] = f"status {status}"
        elif name != "web":
            self.rows[name] = seconds
        if seconds > 1:
            self.drift = max(self.drift, abs((guest - begin[1]) / seconds - 1))

    def load_web(self, port):
        """Eight connections for some seconds, out of the host; then the guest is told to go on."""
        url = f"http://127.0.0.1:{port}/"
        try:
            said = run([*self.image.program("wrk"), "-t1", "-c8", f"-d{self.web_seconds}s", "--timeout", "20s", url])
            self.rows["web"] = 1000 / float(re.search(r"Requests/sec:\s*([\d.]+)", said)[1])
        except (Failed, TypeError, ZeroDivisionError) as e:
            self.errors["web"] = str(e)
        urllib.request.urlopen(url + "done", timeout=60).read()


class Suite:
    """All rows of all sides, `rounds` times, the sides in turn."""

    def __init__(self, out, args):
        self.tmp, self.log = tempfile.mkdtemp(prefix="lodge-guest."), None
        try:
            self.image = Image(args.cache or os.path.join(out, "cache"), self.tmp, args.scale, args.rows)
        except BaseException:
            self.close()
            raise
        self.args = args
        self.log = open(os.path.join(out, "bench.log"), "w", buffering=1)  # every line of every guest, with its time
        self.sides = []
        if "lodge" in args.sides:
            self.sides.append(Lodge(self.image, os.path.join(out, "bin/lodge"), args.engine))
        if "tcg" in args.sides and shutil.which("qemu-system-x86_64"):
            self.sides.append(Tcg(self.image))
        self.samples, self.sums, self.errors, self.drift = {}, {}, {}, {}
        self.events, self.counters = {}, []

    def close(self):
        if self.log:
            self.log.close()
        shutil.rmtree(self.tmp, ignore_errors=True)

    def measure(self):
        parts = [name for name, part in PARTS.items() if self.wanted(*part.rows)]
        for n in range(self.args.rounds):
            for side in self.sides[:: 1 if n % 2 == 0 else -1]:
                for part in parts:
                    self.say(n, f"{side.key}: {PARTS[part].what}")
                    self.boot(side, part)
            for part in parts if "native" in self.args.sides else ():
                if part != "bios":
                    self.say(n, f"native: {PARTS[part].what}")
                    for _ in range(2 if part == "all" else 1):
                        self.native(part)

    def say(self, n, text):
        print(f"  (round {n + 1} of {self.args.rounds}, {time.strftime('%H:%M:%S')}: {text})", flush=True)

    def wanted(self, *names):
        return not self.args.rows or any(fnmatch.fnmatch(n, p) for n in names for p in self.args.rows)

    def boot(self, side, part):
        cpus, bios, port = PARTS[part].cpus, part == "bios", free_port()
        job = None if bios else self.image.job_disk(part, side.long)
        guest = Guest(self.image, self.args.web_seconds)
        lines = Lines(side.command(cpus, not bios, job, port), self.args.patience, self.log)
        try:
            if bios:
                guest.follow(lines, port, "BENCH user-space")
                guest.rows = {"bios": guest.rows["direct"]} if guest.rows else {}
            else:
                guest.follow(lines, port, counters=side.counters)
        except (Failed, OSError) as e:
            guest.errors["boot"] = f"{part}: {e}"
        finally:
            lines.close()
        if not guest.rows:
            guest.errors["boot"] = f"{part}: no user space; status {lines.process.returncode}; last lines: {lines.tail[-3:]}"
        if cpus > 1:
            guest.rows.pop("direct", None)
        if part == "all" and side.counters:
            self.counters = guest.counters.as_list()
        self.say_missing(part, guest)
        self.collect(side.key, guest)

    def say_missing(self, part, guest):
        for name in sorted(PARTS[part].rows):
            if self.wanted(name) and name not in {**guest.rows, **guest.errors} and "boot" not in guest.errors:
                guest.errors[name] = "was not measured (see bench.log)"

    def native(self, part):
        self.image.configure(part, LONG)
        mine = sorted(os.sched_getaffinity(0))[-PARTS[part].cpus:]
        script = ". /bench/config; export PART SCALE ROWS LONG; sh /bench/rows; echo BENCH off $?"
        guest = Guest(self.image, self.args.web_seconds)
        lines = Lines(self.image.native_command(script), self.args.patience, self.log, lambda: os.sched_setaffinity(0, mine))
        try:
            guest.follow(lines, PORT)
        except (Failed, OSError) as e:
            guest.errors["native"] = str(e)
        finally:
            lines.close()
        guest.rows["direct"] = None
        self.say_missing(part, guest)
        del guest.rows["direct"]
        self.collect("native", guest)

    def collect(self, key, guest):
        for name, seconds in guest.rows.items():
            if name in ROWS and self.wanted(name):
                self.samples.setdefault(name, {}).setdefault(key, []).append(seconds)
        self.events.update(guest.events)
        for name, said in guest.sums.items():
            if self.sums.setdefault(name, said) != said:
                guest.errors[name] = "its result is not that of the first side"
        for name, what in guest.errors.items():
            print(f"  ({key}: {name}: {what})", flush=True)
            self.errors.setdefault(key, []).append(f"{name}: {what}")
        self.drift[key] = max(self.drift.get(key, 0), guest.drift)
