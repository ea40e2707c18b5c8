/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Everything that the process of one machine (lodge-vm) and the host library agree on: how it is started, the files of
 * its run directory, the control protocol, and the JSON document that describes a machine.
 *
 * This header has constants and text only, so that host/ can include it without linking vm/.
 *
 * ---- Starting --------------------------------------------------------------------------------------------------
 *
 *	lodge-vm --config FILE --run-dir DIR [--log FILE] [--ready-fd N] [--foreground]
 *
 * FILE is the JSON document described below; it is read once, before lodge-vm reports, and may be removed after that.
 * Give it mode 0600: it may hold the console's password. DIR must exist and belong to the caller. lodge-vm forks, calls
 * setsid() and points descriptors 0, 1 and 2 at /dev/null (not with --foreground); the process that was started exits
 * with 0 when the machine runs and 1 when it does not. With --ready-fd the writing end of an inherited pipe gets
 * exactly one line and is then closed:
 *
 *	{"ok":true,"pid":4711,"engine":"interp","engine_reason":"...","vrde_port":5901}
 *	{"error":{"code":"VBOX_E_FILE_ERROR","text":"Cannot open ..."}}
 *
 * A copy of a machine that runs is started with --copy-fds N: descriptors from the one behind --ready-fd on are what
 * the method "fork" gave.
 *
 * End of file without a line means that the process died. Nothing of the machine is left in that case.
 *
 *	lodge-vm --which-engine auto|kvm|jit|interp
 *
 * starts nothing and prints such a line, with "engine" and "engine_reason" or with "error", on stdout.
 *
 * ---- The run directory -----------------------------------------------------------------------------------------
 *
 *	lock          Held (OFD write lock on byte 0, F_OFD_SETLK) by the process of the machine for its whole life.
 *	              Its text is the process number and a newline. When the lock is free and the last status is not
 *	              final, the machine was aborted.
 *	status.json   Replaced atomically at every change of state; see below.
 *	control.sock  The control socket, mode 0600; removed at a clean end.
 *	guestprops.json  {"properties":[{"name","value","time":ns since 1970,"flags"}]}: guest properties, replaced
 *	              atomically a moment after a change and at the end. Who takes them over removes it.
 *
 * ---- status.json -----------------------------------------------------------------------------------------------
 *
 *	{"pid":4711, "state":"running", "since":"2024-05-01T10:00:00.000000000", "engine":"interp",
 *	 "engine_reason":"...", "vrde_port":5901, "reason":"guest power-off",
 *	 "ejected":[{"controller":"IDE", "port":1, "device":0, "path":"/…"}]}
 *
 * `state` is one of VM_STATES. Final are "poweroff", "saved" and "aborted"; `reason` (a sentence) goes with them
 * and with "gurumeditation". `since` is UTC. vrde_port is 0 when the console server is off. `ejected`: drives whose
 * disc, the one named, the guest has put out; they are empty.
 *
 * ---- The control protocol --------------------------------------------------------------------------------------
 *
 * A unix stream socket. Each message, both ways, is a 4-byte little-endian length (1 .. VM_MESSAGE_MAX, answers
 * VM_REPLY_MAX) and that many bytes of one JSON object:
 *
 *	-> {"id":1, "method":"pause", "params":{}}
 *	<- {"id":1, "result":{}}       or      {"id":1, "error":{"code":"VBOX_E_INVALID_VM_STATE","text":"..."}}
 *
 * A request that takes long is followed by any number of {"id":1, "progress":42} (percent) before its answer.
 *
 * `params` may be left out when it is empty. Answers come in the order of the requests of a connection. A client that
 * sends something else is told so (id null) and disconnected, as is one that does not read its answers. The methods are
 * VM_METHODS below.
 */
#ifndef VM_PROTOCOL_H
#define VM_PROTOCOL_H

#define VM_FILE_LOCK "lock"
#define VM_FILE_STATUS "status.json"
#define VM_FILE_CONTROL "control.sock"
#define VM_FILE_PROPS "guestprops.json"
#define VM_FILE_CORE "vmcore" /* written on request, then taken away by who asked */

#define VM_MESSAGE_MAX (1u << 20) /* of a request */
#define VM_REPLY_MAX (64u << 20)  /* of an answer: screenshots */
#define VM_LOGIN_LINE_MAX 1024	  /* bytes of "line" in agent.login */

/*
 * The life cycle of a machine, as VirtualBox names the states. X(name, text, final)
 *
 *	state           allowed next             what is allowed in it
 *	starting        running aborted          nothing: the control socket does not answer yet
 *	restoring       running aborted          the same, from a saved state
 *	running         paused stopping gurum.   everything
 *	paused          running stopping         everything that does not need the guest to act
 *	livesnapshotting  running                a snapshot is taken; requests wait. snapshotting: of a paused machine
 *	saving          saved running paused     the machine is being written down; requests wait
 *	saved           -                        final
 *	stopping        poweroff                 status
 *	poweroff        -                        final
 *	aborted         -                        final; also concluded by host/ from a free lock without a final status
 *	gurumeditation  running stopping         status, screenshot, stats, poweroff, reset. The CPUs stopped for good
 *	                                         (triple fault, engine error); the machine is kept for inspection
 */
#define VM_STATES(X)                                                                                                   \
	X(VM_STARTING, "starting", 0)                                                                                  \
	X(VM_RESTORING, "restoring", 0)                                                                                \
	X(VM_RUNNING, "running", 0)                                                                                    \
	X(VM_PAUSED, "paused", 0)                                                                                      \
	X(VM_LIVE_SNAPSHOTTING, "livesnapshotting", 0)                                                                 \
	X(VM_SNAPSHOTTING, "onlinesnapshotting", 0)                                                                    \
	X(VM_SAVING, "saving", 0)                                                                                      \
	X(VM_STOPPING, "stopping", 0)                                                                                  \
	X(VM_SAVED, "saved", 1)                                                                                        \
	X(VM_POWEROFF, "poweroff", 1)                                                                                  \
	X(VM_ABORTED, "aborted", 1)                                                                                    \
	X(VM_GURU, "gurumeditation", 0)
#define VM_STATE_ENUM(name, text, final) name,
enum vm_state { VM_STATES(VM_STATE_ENUM) VM_STATE_COUNT };
#undef VM_STATE_ENUM

/* clang-format off */
/*
 * X(method, function suffix, text). Parameters and results; a ? marks an optional member:
 *
 *	status                      -> the members of status.json, and "name", "uuid", "cpus", "memory" (MiB),
 *	                               "width","height" (of the screen), "uptime_ms",
 *	                               "nics":[{"slot":0,"cable":true,"forwards":["name,tcp,ip,port,ip,port",...]}],
 *	                               "vrde_clients":n,
 *	                               "additions":{"version":"6.0.0","revision":n,"run_level":0-2,"os_type":n,
 *	                               "graphics":bool,"balloon":MiB,"silent_ms":n} of the guest's driver, or null
 *	pause, resume               -> {}
 *	reset                       -> {}        all devices and CPUs to their power-on state
 *	poweroff                    -> {}        answered when the disks are closed and status.json says poweroff
 *	savestate {path}            -> {}        the machine is written to the new file `path` (in the snapshot folder)
 *	                               and ends; answered when status.json says saved. On an error it goes on
 *	snapshot.take {path?, disks:[{controller, port, device, path, format, uuid}]}
 *	                            -> {"stopped_ms", "ms", "memory", "written", "copied", "rounds"}   each disk gets
 *	                               an overlay (a new file), memory and devices go to the new file `path`; the
 *	                               machine stands still for stopped_ms. On an error all is as before
 *	cancel                      -> {}        the savestate, snapshot.take, fork or merge up that is under way is to be
 *	                               given up: it is answered with an error, and all is as before, unless it is done by then
 *	overlay.remove {disks:[{..., parent, parent_format}]}
 *	                            -> {}        the overlays of a fork go again, their contents into what is behind them,
 *	                               which nobody else uses
 *	barrier                     -> {}        answered when what was asked for before is done
 *	fork {disks:[...]}          -> {"stopped_ms"}   each disk gets an overlay, as for snapshot.take; with the
 *	                               answer come descriptors (SCM_RIGHTS) for lodge-vm's --copy-fds: the state,
 *	                               and the layers of memory
 *	merge.start {controller, port, device, child:path, way:"up"|"down"}
 *	                            -> {}        merge an image of the disk's chain with its parent (block/block.h);
 *	                               answered when it is ready
 *	merge.finish, merge.cancel {controller, port, device} -> {}
 *	acpipowerbutton             -> {"handled":bool}   handled: the guest has enabled ACPI and the button's event
 *	quit                        -> {}        the same as poweroff
 *	debug            {what, cpu?:int, names?:[...], values?:[...], item?, args?, lines?:int, level?, listen?}
 *	                            -> {"pairs":[["name","value"],...]}   for debuggers, also while the machine is in
 *	                               gurumeditation. what:
 *	                               registers     names: some, or "all"
 *	                               setregisters  names and values: all or none
 *	                               info          item, args: a view as text, in the pair "text"
 *	                               stack         the same of the call stack
 *	                               osinfo        "name" and "version" of the guest's system
 *	                               dmesg         lines: the log of its kernel in "text"
 *	                               nmi           inject one
 *	                               core          write "vmcore" in the run directory
 *	                               sample        for each CPU: "cpu0" and "address ring"
 *	                               log           level error, warning, info; without: tells it
 *	                               gdb           listen: a port of 127.0.0.1 to serve gdb on, "" to end it; "port"
 *	screenshot                  -> {"width":w, "height":h, "png":"base64..."}
 *	keyboard.scancodes {codes:[int,...]} -> {}   set 1 bytes, 0-255, as they come from a keyboard
 *	keyboard.string  {text}     -> {}   characters without a key on a US keyboard: an error
 *	keyboard.file    {text}     -> as keyboard.string; the client reads the file
 *	setlinkstate     {slot, cable:bool} -> {}
 *	natpf.add        {slot, rule:"name,tcp,ip,port,ip,port"} -> {}
 *	natpf.remove     {slot, name} -> {}
 *	nictrace         {slot, enable:bool, file?} -> {}   the file is the "trace" of that NIC in the configuration. With
 *	                               `file` (its name, for messages) a descriptor of a new one comes with the request
 *	                               (SCM_RIGHTS)
 *	nic.attach       {slot, backend} -> {}   unplug the adapter and plug it in as the backend says (as below)
 *	bandwidth        {group, rate} -> {}     bytes a second for the adapters of the group together, 0: no limit
 *	disk.password    {name, password} -> {}   of encrypted disks; a machine that waits for the last one is resumed
 *	medium.change    {controller, port, device, path, force?:bool} -> {}   dvd drives; path null: eject. force:
 *	                               also when the guest has locked the tray
 *	drive.attach     {controller, port, device, path?, format?, dvd?, nonrotational?, discard?, group?} -> {}
 *	drive.detach     {controller, port, device} -> {}   hot plug: ahci, virtio-scsi and nvme
 *	bandwidth.set    {name, limit} -> {}     bytes a second for the disks of a group together, 0: no limit
 *	share.add        {name, path, readonly?, symlinks?, automount?, mount_point?} -> {}   a shared folder; a descriptor
 *	                               of its directory (O_PATH) comes with the request (SCM_RIGHTS)
 *	share.remove     {name} -> {}
 *	share.symlinks   {name, allowed:bool} -> {}   may the guest make symbolic links there?
 *	share.list       -> {"folders":[{name, path, readonly, automount, mount_point, transient:bool}]}
 *	guestprop.list   {patterns?} -> {"properties":[{name, value, time, flags}]}
 *	guestprop.set    {name, value?, flags?} -> {}   without a value: it is removed
 *	guestprop.wait   {patterns, after, timeout_ms} -> {name, value, time, flags} of the first change behind time
 *	                               `after` (0: of the next one), or {"now":time} after timeout_ms, at most 30000
 *	display.hint     {display, width, height, bpp} -> {}   tell the guest's driver that somebody wants this size
 *	balloon          {mib} -> {}   ask the guest's driver to give up so much memory
 *	vrde.set         {enable:bool} | {ports} -> {"port":n}   as configured in "vrde", or moved to other ports
 *	cpu_cap          {percent} -> {}
 *	consoles         -> {"screen":"text", "serial":[{"port":0, "text":"..."}]}   the text screen ("": it shows a
 *	                               picture), and the last that each serial port was told, printable
 *	agent.status                -> {"open":bool, "ready":bool, "events":n}   open: a program in the guest has the
 *	                               agent's port open; ready: it has answered; events: see agent.wait
 *	agent.call {execute, arguments?, timeout_ms?:10000, no_reply?:bool}
 *	                            -> {"return":any, "events":n} or {"error":{"class","desc"}, "events":n}: one request
 *	                               of QEMU's guest agent protocol, in its turn. The error is the agent's own; an
 *	                               agent that is not there or does not answer in time is an error of this protocol.
 *	                               no_reply: of a request that is answered only when it fails
 *	agent.wait {events, timeout_ms?}
 *	                            -> {"events":n}   when something has happened since the agent's events were counted
 *	                               to `events`, or the time is over
 *	agent.onclose {calls:[{execute, arguments}]}
 *	                            -> {}        asked of the agent when this connection ends, instead of what was said
 *	                               before
 *	agent.session {what, ...}   a list that clients keep for each other, of who does what in the guest:
 *	                               add {name, user} -> {"id"}     ends with the connection
 *	                               process {id, process:{pid, command}}
 *	                               detach {id}, remove {id}
 *	                               list -> {"sessions":[{"id","name","user","client","processes":[...]}]}
 *	agent.login {user, password, line?}
 *	                            -> {"line"?}   for which line of the guest's /etc/shadow that password was right
 *	                               lately; with `line`: remember it (vm/logins.h)
 *	stats                       -> {"cpus":[{counter:n,...}],
 *	                                "disks":[{"controller","port","device","reads","writes",...}],
 *	                                "nics":[{"slot","tx_frames","tx_bytes","rx_frames",...}]}
 */
/* clang-format on */
#define VM_METHODS(X)                                                                                                  \
	X("status", status)                                                                                            \
	X("pause", pause)                                                                                              \
	X("resume", resume)                                                                                            \
	X("reset", reset)                                                                                              \
	X("poweroff", poweroff)                                                                                        \
	X("quit", poweroff)                                                                                            \
	X("acpipowerbutton", acpipowerbutton)                                                                          \
	X("debug", debug)                                                                                              \
	X("savestate", savestate)                                                                                      \
	X("snapshot.take", snapshot_take)                                                                              \
	X("cancel", cancel)                                                                                            \
	X("overlay.remove", overlay_remove)                                                                            \
	X("barrier", barrier)                                                                                          \
	X("fork", fork)                                                                                                \
	X("merge.start", merge_start)                                                                                  \
	X("merge.finish", merge_finish)                                                                                \
	X("merge.cancel", merge_cancel)                                                                                \
	X("screenshot", screenshot)                                                                                    \
	X("keyboard.scancodes", keyboard_scancodes)                                                                    \
	X("keyboard.string", keyboard_string)                                                                          \
	X("keyboard.file", keyboard_string)                                                                            \
	X("setlinkstate", setlinkstate)                                                                                \
	X("natpf.add", natpf_add)                                                                                      \
	X("natpf.remove", natpf_remove)                                                                                \
	X("nictrace", nictrace)                                                                                        \
	X("nic.attach", nic_attach)                                                                                    \
	X("bandwidth", bandwidth)                                                                                      \
	X("disk.password", disk_password)                                                                              \
	X("medium.change", medium_change)                                                                              \
	X("drive.attach", drive_attach)                                                                                \
	X("drive.detach", drive_detach)                                                                                \
	X("bandwidth.set", bandwidth_set)                                                                              \
	X("share.add", share_add)                                                                                      \
	X("share.remove", share_remove)                                                                                \
	X("share.symlinks", share_symlinks)                                                                            \
	X("share.list", share_list)                                                                                    \
	X("guestprop.list", guestprop_list)                                                                            \
	X("guestprop.set", guestprop_set)                                                                              \
	X("guestprop.wait", guestprop_wait)                                                                            \
	X("display.hint", display_hint)                                                                                \
	X("balloon", balloon)                                                                                          \
	X("vrde.set", vrde_set)                                                                                        \
	X("consoles", consoles)                                                                                        \
	X("cpu_cap", cpu_cap)                                                                                          \
	X("stats", stats)                                                                                              \
	X("agent.status", agent_status)                                                                                \
	X("agent.call", agent_call)                                                                                    \
	X("agent.wait", agent_wait)                                                                                    \
	X("agent.onclose", agent_onclose)                                                                              \
	X("agent.session", agent_session)                                                                              \
	X("agent.login", agent_login)

/*
 * ---- The configuration document ----------------------------------------------------------------------------------
 *
 * One JSON object. Unknown keys, wrong types and values out of range are refused. Everything but "version" and "name"
 * may be left out; the default is behind the colon. Paths are absolute.
 *
 * {
 *   "version": 1,
 *   "name": "web1",                     1-255 bytes
 *   "uuid": "xxxxxxxx-...",             : random. The guest sees it in SMBIOS
 *   "memory": 512,                      MiB, 4-1048576 : 128
 *   "cpus": 2,                          1-64 : 1
 *   "engine": "auto",                   auto kvm jit interp : auto
 *   "cpu_model": "host",                : host
 *   "hpet": true,                       : true
 *   "rtc_utc": true,                    false: the RTC shows local time : true
 *   "rtc_offset_ms": 0,                 added to the RTC : 0
 *   "host_time": true,                  false: what stands still while the machine does is not made up for : true
 *   "sandbox": true,                    false for debugging only : true
 *   "user": "lodge",                    when started as root: become this user before the first guest instruction : ""
 *   "log": "/…/VBox.log",               as --log : stderr with --foreground, else none
 *   "state": "/…/x.sav",               resume from this saved state : ""
 *   "generation": "xxxxxxxx-...",      goes on from a copy or from the past: a new generation ID for the guest : ""
 *   "snapshot_dir": "/…/Snapshots",    where savestate and snapshot.take may make files : ""
 *   "triple_fault": "reset",            reset, stop (gurumeditation) : stop
 *   "boot": ["dvd","disk"],             disk dvd net floppy none, at most 4, in this order : ["disk","dvd"]
 *   "cpu_cap": 100,                     percent of a host CPU that each virtual one may use : 100
 *   "boot_menu": false,                 true: "Press ESC for boot menu", 2 s : false
 *   "firmware": "/…/bios-256k.bin",     : SeaBIOS of the host's package
 *   "kernel": {"image": "/…", "initrd": "/…", "append": "console=ttyS0", "modules": ["/… args", …]},
 *                                       boot this bzImage, multiboot or PVH ELF, not what the firmware finds :
 *                                       none. A module is a path, a blank, and its command line (multiboot)
 *   "smbios": {"bios_vendor","bios_version","vendor","product","product_version","serial","family",
 *              "board_vendor","board_product","chassis_vendor"}
 *                                       strings of at most 64 bytes : "innotek GmbH","VirtualBox",
 *                                       "innotek GmbH","VirtualBox","1.2","0","Virtual Machine",...
 *   "vga": {"memory": 16},              MiB, 1-256, rounded up to a power of two; null: no VGA : 16
 *   "usb": false, "usb_tablet": false, "usb_keyboard": false,
 *                                       an xHCI controller, and what is plugged in : false. A controller of the type
 *                                       "usb" is that controller too
 *   "audio": false, "audio_file": "",   an AC'97 sound card, and the WAVE file for what it plays : false, none
 *   "hda": false,                       the sound card is an HD Audio controller : false
 *   "storage": [                        controllers, in order
 *     {"name": "SATA", "type": "ahci",  ide (PIIX4: ports 0-1, devices 0-1), ahci (ports 0-29), virtio (virtio-blk, one
 *                                       PCI device an attached disk; ports 0-29), virtio-scsi and nvme (ports 0-63),
 *                                       lsilogic (ports 0-15), floppy (port 0, devices 0-1)
 *      "ports": 4,                      how many : highest used + 1
 *      "model": "PIIX3",                of an ide, also ICH6 : PIIX4
 *      "bootable": true,                : true
 *      "hostiocache": true,             false: the data of its images goes past the host's page cache : true
 *      "attachments": [
 *        {"port": 0, "device": 0, "type": "disk", "path": "/…", "format": "vdi", "readonly": false,
 *         "serial": "VB12345678-9abcdef0", "nonrotational": false, "discard": false, "group": ""}
 *                                       type: disk, dvd or floppy. One of the last two with path "" or none is an
 *                                       empty drive. group: one of "bandwidth" : ""
 *                                       format: raw vdi : found out. serial: at most 20 characters
 *      ]}],
 *   "bandwidth": [{"name": "slow", "limit": 1048576}]
 *                                       groups of disks that share a limit of bytes a second, 0: none
 *   "nics": [
 *     {"slot": 0,                       0-7, also decides the PCI slot and NAT's 10.0.(2+slot).0/24
 *      "model": "e1000",                e1000 (82540EM) 82543GC 82545EM virtio Am79C970A Am79C973
 *      "mac": "080027aabbcc",           12 hex digits : random with 080027
 *      "cable": true,                   : true
 *      "backend": {"type": "nat", "network": "192.168.5.0/24", "hostname": "", "tftp": "/…", "bootfile": "",
 *                  "localhost_reachable": true,
 *                  "forwards": ["name,tcp,127.0.0.1,8080,,80", …]},
 *                                       or {"type": "none"} : none
 *                                       or {"type": "null"}: a cable that leads nowhere
 *                                       or {"type": "switch", "dir": "/…/net/ID", "port": "ID", "token": "..."}: a
 *                                       network of several machines (switch/protocol.h)
 *                                       or {"type": "tunnel", "local_port": 1001, "remote_port": 1002,
 *                                       "remote": "10.0.0.2", "local_ip": ""}: frames in UDP datagrams
 *                                       or {"type": "vde", "dir": "/…/vde.ctl"}: a port of a VDE switch
 *      "bandwidth_group": "", "bandwidth": 0,   bytes a second for all adapters of that group, 0: no limit : no group
 *      "speed": 0,                     kbit/s, reported and sent at most, 0: the usual one and no limit : 0
 *      "boot_priority": 0,             for booting from the network: 1 first, 4, 0 last : 0
 *      "trace": "/…/nic.pcap", "trace_on": true}    : no trace
 *   ],
 *   "serial": [
 *     {"port": 0, "base": 1016, "irq": 4, "mode": "file", "path": "/…"}
 *                                       port 0-3; base and irq : those of COM1-COM4. mode: disconnected, file,
 *                                       stdio (with --foreground), pty (path: a symlink to make), server (path: unix
 *                                       socket to listen on), client (path: unix socket), tcpserver (path: port),
 *                                       tcpclient (path: host:port), device (path: a host tty)
 *   ],
 *   "vrde": {"enabled": true, "address": "127.0.0.1", "ports": "5900-5999", "password": ""},
 *                                       left out: there is none. enabled : true. ports: a list of ports and ranges
 *                                       ("5900,6000-6010"), the first free one is taken : 5900-5999
 *   "guest_device": true,               VirtualBox's, for guests' drivers (80ee:cafe) : false, true with "shares"
 *   "shares": [{"name": "src", "path": "/…", "readonly": false, "symlinks": false, "automount": false,
 *               "mount_point": ""}]     shared folders. symlinks: the guest may make symbolic links
 *   "properties": [{"name": "/a/b", "value": "c", "time": 0, "flags": "TRANSIENT, RDONLYGUEST"}]
 *                                       guest properties
 *   "agent": true,                      a virtio-serial port for the guest agent, asked through agent.call : false
 *   "devices": ["virtio-rng"]           also virtio-balloon virtio-console virtio-serial debug-exit testdev : none.
 *                                       "virtio-console=file:/…" (or null, pty, unix-server:PATH...) connects it;
 *                                       virtio-serial is the agent's port, for another program to talk to
 * }
 *
 * null is the same as leaving the member out, apart from "vga".
 */
#define VM_CONFIG_VERSION 1

#endif
