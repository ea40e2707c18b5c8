# Shared by the tests of saved states and snapshots: machines of the inventory with the small Linux of tools/make-iso, whose
# first serial port is a shell on a TCP port.

state_setup() {
	export HOME=$BATS_TEST_TMPDIR/home LODGE_HOME=$BATS_TEST_TMPDIR/home/lodge
	mkdir -p "$HOME"
	unset LODGE_ENGINE DISPLAY
	shell_port=$(free_port)
	web_port=$(free_port)
}

state_teardown() {
	local name
	VBoxManage list runningvms 2>/dev/null | sed 's/^"\(.*\)" {.*/\1/' | while read -r name; do
		VBoxManage controlvm "$name" poweroff >/dev/null 2>&1 || true
	done
}

# linux NAME [MIB [CPUS]]: a machine that boots the CD.
linux() {
	VBoxManage createvm --name "$1" --ostype Linux26_64 --register >/dev/null
	VBoxManage modifyvm "$1" --memory "${2:-192}" --cpus "${3:-1}" --nic1 nat --boot1 dvd --boot2 none \
		--natpf1 "web,tcp,127.0.0.1,$web_port,,80" --uart1 0x3F8 4 --uartmode1 tcpserver "$shell_port"
	VBoxManage storagectl "$1" --name IDE --add ide
	VBoxManage storageattach "$1" --storagectl IDE --port 1 --device 0 --type dvddrive --medium "$ISO" >/dev/null
}

disk() { # NAME CONTROLLER BUS [MIB]: a new disk as the first of a new controller
	VBoxManage createmedium disk --filename "$HOME/$1-$2.vdi" --size "${4:-32}" >/dev/null 2>&1
	[ "$3" = ide ] || VBoxManage storagectl "$1" --name "$2" --add "$3" >/dev/null
	VBoxManage storageattach "$1" --storagectl "$2" --port 0 --device 0 --type hdd --medium "$HOME/$1-$2.vdi" >/dev/null
}

# sh_in_guest PORT COMMAND: its output, which stands between two marks.
sh_in_guest() {
	timeout 90 python3 - "$@" <<'PY'
import random, re, socket, sys, time
port, command = int(sys.argv[1]), sys.argv[2]
mark = "%08x" % random.getrandbits(32)
line = "\necho B''%s; %s; echo E''%s $?\n" % (mark, command, mark)
text, end, s = "", time.time() + 80, None
done = re.compile("B" + mark + "\\r?\n(.*)E" + mark + " ([0-9]+)", re.S)
finished = re.compile("E" + mark + " [0-9]+\\s")

def listen(s, until, seconds):
    global text
    stop = time.time() + seconds
    while not re.search(until, text) and time.time() < stop:
        try:
            got = s.recv(4096)
        except socket.timeout:
            continue
        if not got:
            return
        text += got.decode(errors="replace")

def say(s, line):
    for c in line:
        s.sendall(c.encode())
        time.sleep(0.001)

while not finished.search(text) and time.time() < end:
    try:
        s = socket.create_connection(("127.0.0.1", port), 5)
        s.settimeout(0.5)
        s.sendall(b"\x03")
        time.sleep(0.3)
        # Typed ahead of stty, characters are lost: wait for its end.
        ready = "R" + mark + "%d" % time.time()
        say(s, "\nstty -echo; PS1= PS2=; echo R''%s\n" % ready[1:])
        listen(s, ready, 10)
        if ready in text:
            say(s, line)
            listen(s, finished, 25)
    except OSError:
        time.sleep(0.3)
    finally:
        if s:
            s.close()
found = done.search(text)
if not found:
    sys.exit("the guest's shell does not answer: " + text[-300:])
sys.stdout.write(found.group(1).replace("\r", ""))
sys.exit(int(found.group(2)))
PY
}
guest() { sh_in_guest "$shell_port" "$1"; }

serves() { curl -sf -m 5 "http://127.0.0.1:$web_port/" | grep -q 'Hello from a Lodge guest'; }
up() { # NAME: started, and its shell answers
	VBoxManage startvm "$1" --type headless >/dev/null
	wait_for 100 serves
}

# keep_busy DEVICE...: until told otherwise each disk is written, read back and compared; /tmp/bad has what was wrong.
keep_busy() {
	guest "cat >/tmp/busy <<'X'
d=\$1; n=0
while [ ! -f /tmp/stop ]; do
 n=\$((n+1)); dd if=/dev/urandom of=/tmp/w.\$2 bs=4k count=64 2>/dev/null
 dd if=/tmp/w.\$2 of=\$d bs=4k seek=\$((n%16*64)) conv=fsync 2>/dev/null || echo write \$d \$n >>/tmp/bad
 echo 1 >/proc/sys/vm/drop_caches
 dd if=\$d bs=4k skip=\$((n%16*64)) count=64 2>/dev/null | cmp - /tmp/w.\$2 || echo \$d \$n >>/tmp/bad
 echo \$n >/tmp/n.\$2
done
X
rm -f /tmp/stop /tmp/bad; i=0; for d in $*; do i=\$((i+1)); setsid sh /tmp/busy \$d \$i </dev/null >/dev/null 2>&1 & done; echo \$i"
}
