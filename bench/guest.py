# SPDX-License-Identifier: Apache-2.0
"""The same work in the same Debian guest: under Lodge, under QEMU's TCG, and natively out of the image's root.

A boot runs all rows of bench/guest/rows; the guest says on its serial port where a row begins and ends, and the host's
clock measures. All that differs between the sides is who runs the guest.
"""
import fnmatch
import glob
import os
import re
import select
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
PORT = 8097  # of the web server: in the guest, and on the host when the row runs natively
MEMORY = 512

# name: (what it is, ahead of TCG at least, stretch); the order is that of the table
ROWS = {
    "direct": ("power-on to user space, direct boot", 2.5, 5),
    "bios": ("power-on to user space, BIOS and GRUB", 2, 4),
    "shell-loop": ("shell loop (dash)", 5, 10),
    "processes": ("fork + exec + wait", 3, 6),
    "syscalls": ("1-byte read and write", 3, 5),
    "switches": ("context switches (a byte through two pipes)", None, None),
    "page-faults": ("page faults (fresh anonymous memory)", None, None),
    "sha256sum": ("sha256sum", 4, 8),
    "md5sum": ("md5sum", 4, 8),
    "gzip": ("gzip -6", 4, 8),
    "xz": ("xz -2", 4, 8),
    "openssl-aes": ("openssl speed aes-128-gcm, 100 MB", 4, 8),
    "openssl-rsa": ("openssl speed rsa2048, 100 signatures", 4, 8),
    "7z-b": ("7z b (at size 1: 7z a, 7z t)", 4, 8),
    "python3": ("python3", 4, 8),
    "perl": ("perl", 4, 8),
    "sqlite-memory": ("sqlite3, in memory", 4, 8),
    "sqlite-disk": ("sqlite3, on disk", 4, 8),
    "gcc": ("gcc -O2 of stb_image_write", 4, 8),
    "matrix": ("matrix product, scalar", 8, 15),
    "matrix-avx2": ("matrix product, AVX2", 8, 15),
    "nbody": ("n-body, scalar", 8, 15),
    "nbody-avx2": ("n-body, AVX2", 8, 15),
    "stride-sort": ("sort with long strides", 1.5, 2.5),
    "random-list": ("random list", 1.5, 2.5),
    "web": ("web server through NAT, 1000 requests", 3, 6),
    "make-1": ("make -j2, 1 CPU", None, None),
    "make-2": ("make -j2, 2 CPUs", None, None),
}
# A RATE line becomes the seconds that this much of it takes.
RATE_AMOUNT = {"openssl-aes": 100e6, "openssl-rsa": 100}


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
        if not os.path.exists(self.disk) or os.path.getmtime(self.disk) < os.path.getmtime(recipe):
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
        self.inside("gcc -O2 -fno-math-errno -static -o /bench/work /bench/work.c -lm")

    def write_sources(self):
        """Real C files for the compiler: Debian's libstb-dev, whose headers hold whole libraries."""
        units = {"image_write": "IMAGE_WRITE", "rect_pack": "RECT_PACK", "sprintf": "SPRINTF", "dxt": "DXT"}
        for name, macro in units.items():
            with open(f"{self.job}/src/{name}.c", "w") as f:
                f.write(f"#define STB_{macro}_IMPLEMENTATION\n#include <stb/stb_{name}.h>\n")
        with open(self.job + "/src/Makefile", "w") as f:
            f.write("all:" + "".join(f" $(O)/{name}.o" for name in units) +
                    "\n$(O)/%.o: %.c\n\t@mkdir -p $(O)\n\tgcc -w -c -o $@ $<\n")

    def text(self, size):
        """The same megabytes for everybody: Python's own library, in order."""
        parts = (open(p, "rb").read() for p in sorted(glob.glob(self.root + "/usr/lib/python3*/**/*.py", recursive=True)))
        return b"".join(parts)[:size]

    def job_disk(self, part):
        """The second disk: an ext4 that has the rows and is written to. A new one for every boot."""
        with open(self.job + "/config", "w") as f:
            f.write(f"PART={part}\n" + self.options)
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
    key = "lodge"

    def __init__(self, image, binary, engine):
        self.image, self.binary, self.engine = image, binary, engine

    def command(self, cpus, direct, job, port):
        cmd = [self.binary, "boot", "--engine", self.engine, "--memory", str(MEMORY), "--cpus", str(cpus), "--display", "none",
               "--serial", "stdio", "--disk", f"{self.image.disk},bus=virtio,readonly=on"]
        if job:
            cmd += ["--disk", f"{job},bus=virtio", "--nic", f"nat,model=virtio,hostfwd=tcp:127.0.0.1:{port}-:{PORT}"]
        return cmd + (["--kernel", self.image.kernel, "--initrd", self.image.initrd, "--append", LINE] if direct else [])


class Tcg:
    key = "tcg"

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


class Lines:
    """The lines of a process, each with the host's clock; Failed when none comes for `patience` seconds."""

    def __init__(self, cmd, patience, log, **kw):
        self.patience, self.log = patience, log
        log.write(f"# {' '.join(cmd)}\n")
        self.start = time.monotonic()
        self.process = subprocess.Popen(cmd, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **kw)
        self.tail = []

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


class Guest:
    """What one run of the rows said."""

    def __init__(self, image, seconds):
        self.image, self.web_seconds = image, seconds
        self.rows, self.sums, self.errors, self.drift = {}, {}, {}, 0.0

    def follow(self, lines, port, last="BENCH off"):
        began = {}
        for now, text in lines:
            word = re.search(r"(BENCH|BEGIN|END|RATE|SUM) (\S+) ?(.*)", text)
            if not word:
                continue
            kind, name, rest = word.groups()
            if kind == "BENCH" and name == "user-space":
                self.rows["user-space"] = now - lines.start
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
            elif kind == "RATE" and name in RATE_AMOUNT:
                self.rows[name] = RATE_AMOUNT[name] / float(rest)
            if text.startswith(last) or f"{kind} {name}" == last:
                return

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

    def close(self):
        if self.log:
            self.log.close()
        shutil.rmtree(self.tmp, ignore_errors=True)

    def measure(self):
        apart = {"bios", "make-1", "make-2"}
        rows, make, bios = self.wanted(*(set(ROWS) - apart)), self.wanted("make-1", "make-2"), self.wanted("bios")
        for n in range(self.args.rounds):
            for side in self.sides[:: 1 if n % 2 == 0 else -1]:
                self.say(n, side.key)
                if rows:
                    self.boot(side, 1, True, "all", {"user-space": "direct"})
                if make:
                    self.boot(side, 1, True, "make", {"make": "make-1"})
                    self.boot(side, 2, True, "make", {"make": "make-2"})
                if bios:
                    self.boot(side, 1, False, None, {"user-space": "bios"})
            if "native" not in self.args.sides:
                continue
            self.say(n, "native")
            for _ in range(3 if rows else 0):
                self.native("all", 1, {})
            for cpus in (1, 2) if make else ():
                self.native("make", cpus, {"make": f"make-{cpus}"})

    def say(self, n, text):
        print(f"  (round {n + 1} of {self.args.rounds}, {time.strftime('%H:%M:%S')}: {text})", flush=True)

    def wanted(self, *names):
        return not self.args.rows or any(fnmatch.fnmatch(n, p) for n in names for p in self.args.rows)

    def boot(self, side, cpus, direct, part, rename):
        job, port = (self.image.job_disk(part) if part else None), free_port()
        guest = Guest(self.image, self.args.web_seconds)
        lines = Lines(side.command(cpus, direct, job, port), self.args.patience, self.log)
        try:
            guest.follow(lines, port, "BENCH off" if part else "BENCH user-space")
        except (Failed, OSError) as e:
            guest.errors["boot"] = f"{part or 'bios'}, {cpus} CPUs: {e}"
        finally:
            lines.close()
        if "user-space" not in guest.rows:
            guest.errors["boot"] = f"{part or 'bios'}, {cpus} CPUs: no user space; last lines: {lines.tail[-3:]}"
        self.collect(side.key, guest, rename)

    def native(self, part, cpus, rename):
        with open(self.image.job + "/config", "w") as f:
            f.write(self.image.options)
        mine = sorted(os.sched_getaffinity(0))[-cpus:]
        script = f". /bench/config; export SCALE ROWS; sh /bench/rows {part}; echo BENCH off"
        guest = Guest(self.image, self.args.web_seconds)
        lines = Lines(self.image.native_command(script), self.args.patience, self.log,
                      preexec_fn=lambda: os.sched_setaffinity(0, mine))
        try:
            guest.follow(lines, PORT)
        except (Failed, OSError) as e:
            guest.errors["native"] = str(e)
        finally:
            lines.close()
        self.collect("native", guest, rename)

    def collect(self, key, guest, rename):
        for name, seconds in guest.rows.items():
            name = rename.get(name, name)
            if name in ROWS:
                self.samples.setdefault(name, {}).setdefault(key, []).append(seconds)
        for name, said in guest.sums.items():
            if self.sums.setdefault(name, said) != said:
                guest.errors[name] = "its result is not that of the first side"
        for name, what in guest.errors.items():
            print(f"  ({key}: {name}: {what})", flush=True)
            self.errors.setdefault(key, []).append(f"{name}: {what}")
        self.drift[key] = max(self.drift.get(key, 0), guest.drift)
