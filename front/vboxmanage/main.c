/* SPDX-License-Identifier: Apache-2.0 */
/*
 * VBoxManage: the table of commands and what comes before a command.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/log.h"
#include "front/vboxmanage/network.h"
#include "front/vboxmanage/unattended.h"

static int cmd_help(struct cli *c, int argc, char **argv);
static int cmd_commands(struct cli *c, int argc, char **argv);

static const struct verb verbs[] = {
	{ "adoptstate", cmd_adoptstate, "VM FILE", "web1 /backup/web1.sav", false },
	{ "bandwidthctl", cmd_bandwidthctl,
		"VM add NAME --type disk|network --limit LIMIT\n"
		"VM set NAME --limit LIMIT\n"
		"VM remove NAME\n"
		"VM list [--machinereadable]\n"
		"LIMIT: a number of megabytes a second, or with k, m, g of bits, with K, M, G of bytes; 0: none",
		"web1 add slow --type network --limit 20m", false },
	{ "clonevm", cmd_clonevm,
		"VM [--name NAME] [--snapshot NAME|UUID] [--mode machine|machineandchildren|all]\n"
		"  [--options link,keepallmacs,keepnatmacs,keepdisknames,keephwuuids] [--register]\n"
		"  [--basefolder DIRECTORY] [--groups GROUP,...] [--uuid UUID]",
		"web1 --name web2 --snapshot base --options link --register", false },
	{ "checkmediumpwd", cmd_checkmediumpwd, "UUID|FILE PASSWORD-FILE|-", "web1.vdi pwfile", false },
	{ "clonehd", cmd_clonemedium, "UUID|FILE UUID|FILE [--format FORMAT] [--variant VARIANT] [--existing]", NULL,
		true },
	{ "clonemedium", cmd_clonemedium,
		"[disk|dvd|floppy] UUID|FILE UUID|FILE [--format VDI|VMDK|VHD|QCOW2|RAW]\n"
		"  [--variant Standard,Fixed,Split2G,Stream] [--password FILE|-]\n"
		"[disk|dvd|floppy] UUID|FILE UUID|FILE --existing [--password FILE|-]",
		"disk web1.vdi web1.vmdk --format VMDK --variant Stream", false },
	{ "clonevdi", cmd_clonemedium, "UUID|FILE UUID|FILE", NULL, true },
	{ "closemedium", cmd_closemedium, "[disk|dvd|floppy] UUID|FILE [--delete]", "disk old.vdi --delete", false },
	{ "commands", cmd_commands, "", NULL, false },
	{ "controlvm", cmd_controlvm,
		"VM pause|resume|reset|poweroff|acpipowerbutton\n"
		"VM shutdown|reboot [--force]\n"
		"VM cpuexecutioncap PERCENT\n"
		"VM setvideomodehint WIDTH HEIGHT BPP [DISPLAY [yes|no [X Y]]]\n"
		"VM guestmemoryballoon MB\n"
		"VM autostart-enabled on|off\n"
		"VM autostart-delay SECONDS\n"
		"VM vrdeport PORT,...\n"
		"VM screenshotpng FILE [DISPLAY]\n"
		"VM addencpassword NAME FILE|- [--removeonsuspend no]\n"
		"VM keyboardputscancode HEX...\n"
		"VM keyboardputstring TEXT...\n"
		"VM keyboardputfile FILE\n"
		"VM setlinkstate<1-8> on|off\n"
		"VM natpf<1-8> NAME,tcp|udp,HOSTIP,HOSTPORT,GUESTIP,GUESTPORT\n"
		"VM natpf<1-8> delete NAME\n"
		"VM nic<1-8> null|nat|intnet [NAME]|natnetwork [NAME]|hostonly INTERFACE|hostonlynet NAME|\n"
		"  bridged INTERFACE|generic UDPTunnel|VDE\n"
		"VM nicpromisc<1-8> deny|allow-vms|allow-all\n"
		"VM nicproperty<1-8> NAME=[VALUE]\n"
		"VM nictrace<1-8> on|off\n"
		"VM nictracefile<1-8> FILE\n"
		"VM vrde on|off",
		"web1 acpipowerbutton", false },
	{ "convertdd", cmd_convertfromraw, "FILE|stdin FILE [BYTES]", NULL, true },
	{ "convertfromraw", cmd_convertfromraw,
		"FILE FILE [--format VDI|VMDK|VHD|QCOW2|RAW] [--variant Standard,Fixed,Split2G,Stream] [--uuid UUID]\n"
		"stdin FILE BYTES [--format VDI|VMDK|VHD|QCOW2|RAW] [--variant Standard,Fixed,Split2G] [--uuid UUID]",
		"disk.img web1.vdi", false },
	{ "createhd", cmd_createmedium,
		"--filename FILE --size MB [--format VDI|VMDK|VHD|QCOW2|RAW] [--variant Standard,Fixed,Split2G,Stream]",
		"--filename web1.vdi --size 8192", true },
	{ "createmedium", cmd_createmedium,
		"[disk|floppy] --filename FILE --size MB|--sizebyte BYTES [--format VDI|VMDK|VHD|QCOW2|RAW]\n"
		"  [--variant Standard,Fixed,Split2G,Stream] [--type normal|writethrough|...]\n"
		"disk --filename FILE --diffparent UUID|FILE [--format VDI|VMDK|VHD|QCOW2]",
		"disk --filename web1.vdi --size 8192", false },
	{ "createvdi", cmd_createmedium, "--filename FILE --size MB", "--filename web1.vdi --size 8192", true },
	{ "createvm", cmd_createvm,
		"--name NAME [--ostype TYPE] [--register] [--basefolder DIRECTORY] [--groups GROUP,...]\n"
		"  [--uuid UUID] [--default]",
		"--name web1 --ostype Debian_64 --register", false },
	{ "debugvm", cmd_debugvm,
		"VM dumpvmcore --filename FILE\n"
		"VM info ITEM [ARGUMENTS...] [--cpu N]\n"
		"VM injectnmi\n"
		"VM log [error|warning|info]\n"
		"VM logdest\n"
		"VM osdetect\n"
		"VM osinfo\n"
		"VM osdmesg [--lines N]\n"
		"VM getregisters [--cpu N] all|REGISTER...\n"
		"VM setregisters [--cpu N] REGISTER=VALUE...\n"
		"VM show [--human-readable] [log-settings]\n"
		"VM stack [--cpu N]\n"
		"VM statistics [--descriptions] [--pattern PATTERN]\n"
		"VM guestsample --filename FILE --sample-time-us T [--sample-interval-us T]\n"
		"VM gdb PORT|off",
		"web1 osdmesg --lines 20", false },
	{ "dhcpserver", cmd_dhcpserver,
		"add|modify --network NAME|--interface NAME [--server-ip ADDRESS] [--netmask MASK]\n"
		"  [--lower-ip ADDRESS] [--upper-ip ADDRESS] [--ipv6-prefix PREFIX|none] [--enable|--disable] "
		"[SCOPE...]\n"
		"remove|start|restart|stop --network NAME|--interface NAME\n"
		"findlease --network NAME|--interface NAME --mac-address MAC\n"
		"SCOPE: [--global|--group NAME|--vm VM [--nic N]|--mac-address MAC] and what it is to be told:\n"
		"  --set-opt N VALUE --set-opt-hex N HEX --del-opt N --force-opt N --unforce-opt N --suppress-opt N\n"
		"  --unsuppress-opt N --min-lease-time S --default-lease-time S --max-lease-time S\n"
		"  --fixed-address ADDRESS (vm, mac-address) --incl-mac MAC --excl-mac MAC, also -mac-wild, -vendor,\n"
		"  -vendor-wild, -user, -user-wild (group) --zap-conditions --remove-config",
		"add --interface vboxnet0 --server-ip 192.168.56.2 --netmask 255.255.255.0\n"
		"  --lower-ip 192.168.56.3 --upper-ip 192.168.56.254 --enable",
		false },
	{ "discardstate", cmd_discardstate, "VM", "web1", false },
	{ "encryptmedium", cmd_encryptmedium,
		"UUID|FILE [--newpassword FILE|-] [--oldpassword FILE|-] [--cipher "
		"AES-XTS256-PLAIN64|AES-XTS128-PLAIN64]\n"
		"  [--newpasswordid NAME]",
		"web1.vdi --newpassword pwfile --newpasswordid web1", false },
	{ "export", cmd_export,
		"VM... --output FILE.ovf|FILE.ova [--ovf09|--ovf10|--ovf20] [--manifest] [--iso]\n"
		"  [--options manifest,iso,nomacs,nomacsbutnat] [--vsys N [--vmname NAME] [--product TEXT] "
		"[--producturl URL]\n"
		"  [--vendor TEXT] [--vendorurl URL] [--version TEXT] [--description TEXT]\n"
		"  [--eula TEXT] [--eulafile FILE]]...",
		"web1 --output web1.ova --manifest", false },
	{ "getextradata", cmd_getextradata, "global|VM KEY|enumerate", "web1 Lodge/Engine", false },
	{ "guestcontrol", cmd_guestcontrol,
		"VM run|start [--exe PATH] [--username USER] [--password TEXT|--passwordfile FILE|stdin]\n"
		"  [--arg0 NAME] [--cwd DIR] [--putenv NAME=VALUE]... [--timeout MS] [--stdin] [--no-wait-stdout]\n"
		"  [--no-wait-stderr] [--dos2unix|--unix2dos] [--ignore-orphaned-processes] [--session-name NAME]\n"
		"  [--verbose] [--quiet] [--] PROGRAM ARGUMENT...\n"
		"VM execute --image PATH ... [--wait-exit] [--wait-stdout] [--wait-stderr] [-- ARGUMENT...]\n"
		"VM ... --execute COMMAND-LINE [--wait-stdout]\n"
		"VM copyto|copyfrom [--recursive] [--follow] [--no-replace] [--update] [--dryrun]\n"
		"  [--target-directory DIR] SOURCE... [DESTINATION]\n"
		"VM mkdir [--parents] [--mode OCTAL] DIRECTORY...\n"
		"VM rmdir [--recursive] DIRECTORY...\n"
		"VM rm [--force] FILE...\n"
		"VM mv SOURCE... DESTINATION\n"
		"VM mktemp [--directory] [--mode OCTAL] [--tmpdir DIR] TEMPLATE\n"
		"VM stat [--follow] FILE...\n"
		"VM fsinfo [DIRECTORY...]\n"
		"VM list all|sessions|processes|files\n"
		"VM closeprocess --session-id N|--session-name NAME PID...\n"
		"VM closesession --session-id N|--session-name NAME|--all\n"
		"VM updateadditions [--source ISO] [--timeout MS]\n"
		"VM watch [--timeout MS]\n"
		"VM waitrunlevel [--timeout MS] system|userland",
		"web1 run --exe /bin/uname --username root --password secret --wait-stdout -- uname -a", false },
	{ "guestproperty", cmd_guestproperty,
		"get VM NAME [--verbose]\n"
		"set VM NAME [VALUE [--flags FLAGS]]\n"
		"unset VM NAME\n"
		"enumerate VM [--no-timestamp] [--no-flags] [--old-format] [PATTERN...]\n"
		"wait VM PATTERNS [--timeout MS] [--fail-on-timeout]",
		"get web1 /VirtualBox/GuestInfo/Net/0/V4/IP", false },
	{ "help", cmd_help, "[COMMAND]", "createvm", false },
	{ "hostinfo", cmd_hostinfo, "", NULL, false },
	{ "hostonlyif", cmd_hostonlyif,
		"create\n"
		"remove INTERFACE\n"
		"ipconfig INTERFACE --dhcp\n"
		"ipconfig INTERFACE --ip ADDRESS [--netmask MASK]\n"
		"ipconfig INTERFACE --ipv6 ADDRESS [--netmasklengthv6 LENGTH]",
		"ipconfig vboxnet0 --ip 192.168.56.1", false },
	{ "hostonlynet", cmd_hostonlynet,
		"add --name NAME --netmask MASK --lower-ip ADDRESS --upper-ip ADDRESS [--enable|--disable]\n"
		"modify --name NAME|--id ID [--netmask MASK] [--lower-ip ADDRESS] [--upper-ip ADDRESS] "
		"[--enable|--disable]\n"
		"remove --name NAME|--id ID",
		"add --name lab --netmask 255.255.255.0 --lower-ip 192.168.57.1 --upper-ip 192.168.57.200", false },
	{ "import", cmd_import,
		"FILE.ovf|FILE.ova [--dry-run] [--options keepallmacs,keepnatmacs,importtovdi]\n"
		"  [--vsys N [--ostype TYPE] [--vmname NAME] [--group GROUP] [--settingsfile FILE]\n"
		"  [--basefolder DIRECTORY] [--description TEXT] [--eula show|accept] [--cpus N] [--memory MB]\n"
		"  [--unit N [--ignore] [--disk PATH] [--controller UNIT] [--port N] [--scsitype LsiLogic]]...]...",
		"web1.ova --vsys 0 --vmname web2", false },
	{ "internalcommands", cmd_internalcommands, "sethduuid FILE [UUID]", "sethduuid copy.vdi", false },
	{ "list", cmd_list,
		"[--long] [--sorted] vms|runningvms|hdds|dvds|floppies|ostypes|hostinfo|systemproperties\n"
		"[--long] [--sorted] "
		"bridgedifs|hostonlyifs|hostonlynets|dhcpservers|natnets|natnetworks|intnets|groups|extpacks\n"
		"[--long] [--sorted] hostdvds|hostfloppies|hostcpuids|hddbackends|usbhost|usbfilters|webcams|\n"
		"  screenshotformats|cpu-profiles|hostdrives|cloudproviders|cloudprofiles",
		"vms", false },
	{ "mediumproperty", cmd_mediumproperty,
		"[disk|dvd|floppy] set UUID|FILE NAME VALUE\n"
		"[disk|dvd|floppy] get|delete UUID|FILE NAME",
		"disk get web1.vdi owner", false },
	{ "metrics", cmd_metrics,
		"list [*|host|VM [METRICS]]\n"
		"setup [--period SECONDS] [--samples COUNT] [--list] [*|host|VM [METRICS]]\n"
		"query [*|host|VM [METRICS]]\n"
		"enable|disable [--list] [*|host|VM [METRICS]]\n"
		"collect [--period SECONDS] [--samples COUNT] [--list] [--detach] [*|host|VM [METRICS]]\n"
		"METRICS: a list of names, with * for any, like CPU/Load/User,RAM/*:avg",
		"query web1 CPU/Load/User", false },
	{ "modifyhd", cmd_modifymedium, "UUID|FILE OPTION...", NULL, true },
	{ "modifymedium", cmd_modifymedium,
		"[disk|dvd|floppy] UUID|FILE [--type normal|writethrough|immutable|shareable|readonly|multiattach]\n"
		"  [--autoreset on|off] [--property NAME=VALUE] [--compact] [--resize MB|--resizebyte BYTES]\n"
		"  [--password FILE|-] [--move PATH] [--setlocation PATH] [--description TEXT]",
		"disk web1.vdi --resize 16384", false },
	{ "modifyvdi", cmd_modifymedium, "UUID|FILE OPTION...", NULL, true },
	{ "modifyvm", cmd_modifyvm,
		"VM --name NAME --ostype TYPE --memory MB --vram MB --cpus N --groups GROUP,... --description TEXT\n"
		"VM --boot<1-4> none|floppy|dvd|disk|net --biosbootmenu disabled|messageandmenu --rtcuseutc on|off\n"
		"VM --nic<1-8> none|null|nat|bridged|intnet|hostonly|hostonlynet|natnetwork|generic\n"
		"  --bridgeadapter<1-8> INTERFACE --intnet<1-8> NAME --hostonlyadapter<1-8> INTERFACE\n"
		"  --host-only-net<1-8> NAME --nat-network<1-8> NAME --nicgenericdrv<1-8> UDPTunnel|VDE\n"
		"  --nicproperty<1-8> NAME=VALUE --nicpromisc<1-8> deny|allow-vms|allow-all\n"
		"  --nicbandwidthgroup<1-8> none|NAME --cableconnected<1-8> on|off\n"
		"  --nictype<1-8> Am79C970A|Am79C973|82540EM|82543GC|82545EM|virtio\n"
		"  --macaddress<1-8> auto|MAC --nictrace<1-8> on|off --nictracefile<1-8> FILE\n"
		"VM --natpf<1-8> NAME,tcp|udp,HOSTIP,HOSTPORT,GUESTIP,GUESTPORT --natpf<1-8> delete NAME\n"
		"  --natnet<1-8> NETWORK|default --nattftpprefix<1-8> DIRECTORY --nattftpfile<1-8> FILE\n"
		"VM --uart<1-4> off|IOBASE IRQ --uartmode<1-4> disconnected|server PIPE|client PIPE|tcpserver PORT|\n"
		"  tcpclient HOST:PORT|file FILE|pty LINK|DEVICE\n"
		"VM --vrde on|off --vrdeport PORT,... --vrdeaddress ADDRESS --vrdeproperty VNCPassword=PASSWORD\n"
		"VM OPTION VALUE ...: other options of VirtualBox are taken when their value is what there is",
		"web1 --memory 1024 --cpus 2 --natpf1 ssh,tcp,127.0.0.1,2222,,22", false },
	{ "movevm", cmd_movevm, "VM [--folder DIRECTORY] [--type basic]", "web1 --folder /srv/machines", false },
	{ "natnetwork", cmd_natnetwork,
		"add --netname NAME --network NETWORK [--enable|--disable] [--dhcp on|off] [--ipv6 on|off]\n"
		"  [--ipv6-prefix PREFIX/64] [--ipv6-default on|off]\n"
		"  [--port-forward-4|-6 NAME:tcp|udp:[HOSTIP]:PORT:[GUESTIP]:PORT]\n"
		"  [--loopback-4 RULE] [--loopback-6 ::1=2] [--tftp-prefix DIRECTORY] [--tftp-file FILE]\n"
		"modify --netname NAME ... (as add; --port-forward-4|-6 delete NAME, --loopback-4|-6 delete RULE)\n"
		"remove|start|stop --netname NAME\n"
		"list [PATTERN]",
		"add --netname lab --network 10.10.0.0/24 --dhcp on", false },
	{ "registervm", cmd_registervm, "FILE", "'/home/me/VirtualBox VMs/web1/web1.vbox'", false },
	{ "setextradata", cmd_setextradata, "global|VM KEY [VALUE]", "web1 Lodge/Engine interp", false },
	{ "setproperty", cmd_setproperty, "machinefolder default|DIRECTORY", "machinefolder /srv/machines", false },
	{ "sharedfolder", cmd_sharedfolder,
		"add VM --name NAME --hostpath PATH [--readonly] [--transient] [--automount] [--auto-mount-point "
		"PATH]\n"
		"modify VM --name NAME [--readonly true|false] [--automount true|false] [--auto-mount-point PATH]\n"
		"remove VM --name NAME [--transient]",
		"add web1 --name src --hostpath /home/me/src", false },
	{ "showhdinfo", cmd_showmediuminfo, "UUID|FILE", NULL, true },
	{ "showmediuminfo", cmd_showmediuminfo, "[disk|dvd|floppy] UUID|FILE", "disk web1.vdi", false },
	{ "showvdiinfo", cmd_showmediuminfo, "UUID|FILE", NULL, true },
	{ "showvminfo", cmd_showvminfo, "VM [--details] [--machinereadable]\nVM --log N", "web1 --machinereadable",
		false },
	{ "snapshot", cmd_snapshot,
		"VM take NAME [--description TEXT] [--live] [--uniquename Number,Timestamp,Space,Force] [--uuid UUID]\n"
		"VM delete NAME|UUID\n"
		"VM restore NAME|UUID\n"
		"VM restorecurrent\n"
		"VM edit NAME|UUID|--current [--name NAME] [--description TEXT]\n"
		"VM list [--details|--machinereadable]\n"
		"VM showvminfo NAME|UUID",
		"web1 take base --live", false },
	{ "startvm", cmd_startvm, "VM... [--type headless|gui|separate]", "web1 --type headless", false },
	{ "storageattach", cmd_storageattach,
		"VM --storagectl NAME [--port N] [--device N] [--type hdd|dvddrive|fdd]\n"
		"  [--medium none|emptydrive|UUID|FILE] [--nonrotational on|off] [--discard on|off]\n"
		"  [--hotpluggable on|off] [--tempeject on|off] [--bandwidthgroup NAME|none] [--setuuid UUID]\n"
		"  [--mtype normal] [--forceunmount] [--comment TEXT]",
		"web1 --storagectl SATA --port 0 --device 0 --type hdd --medium web1.vdi", false },
	{ "storagectl", cmd_storagectl,
		"VM --name NAME [--add ide|sata|scsi|sas|pcie|virtio|virtio-scsi|floppy]\n"
		"  [--controller PIIX3|PIIX4|ICH6|IntelAhci|LSILogic|LSILogicSAS|NVMe|VirtIO|I82078] [--portcount N]\n"
		"  [--hostiocache on|off] [--bootable on|off] [--rename NAME]\n"
		"VM --name NAME --remove",
		"web1 --name SATA --add sata --controller IntelAhci", false },
	{ "unattended", cmd_unattended,
		"detect --iso FILE [--machine-readable]\n"
		"install VM --iso FILE [--user NAME] [--password PASSWORD|--password-file FILE|-]\n"
		"  [--full-user-name NAME] [--hostname NAME.DOMAIN] [--locale ll_CC] [--country CC] [--time-zone "
		"ZONE]\n"
		"  [--proxy URL] [--key KEY] [--language LANGUAGE] [--[no-]install-additions] [--additions-iso FILE]\n"
		"  [--package-selection-adjustment minimal] [--post-install-command COMMAND]\n"
		"  [--script-template FILE] [--post-install-template FILE] [--auxiliary-base-path PATH]\n"
		"  [--extra-install-kernel-parameters TEXT] [--image-index N] [--dry-run] [--start-vm gui|headless]",
		"install web1 --iso debian.iso --user me --password-file pw --start-vm headless", false },
	{ "unregistervm", cmd_unregistervm, "VM [--delete]", "web1 --delete", false },
};

const struct verb *
verb_at(size_t i)
{
	return i < ARRAY_LEN(verbs) ? &verbs[i] : NULL;
}

const struct verb *
verb_find(const char *name)
{
	for (size_t i = 0; i < ARRAY_LEN(verbs); i++)
		if (!strcmp(name, verbs[i].name))
			return &verbs[i];
	return NULL;
}

static void
say_recovered(void *opaque, const char *sentence)
{
	warn(opaque, "%s", sentence);
}

struct host *
cli_host(struct cli *c)
{
	struct err e = { 0 };

	if (c->host)
		return c->host;
	c->host = host_open(&e);
	if (!c->host)
		fail_plain(c, "%s", e.text);
	else
		host_recover(c->host, say_recovered, c);
	return c->host;
}

static int
cmd_commands(struct cli *c, int argc, char **argv)
{
	for (size_t i = 0; i < ARRAY_LEN(verbs); i++)
		if (!verbs[i].alias)
			printf("%s\n", verbs[i].name);
	return 0;
}

static void
print_all_usage(struct cli *c)
{
	printf("Usage:\n\n"
	       "  %s [--nologo|-q] [--detailed-progress|-d] COMMAND ARGUMENTS...\n"
	       "  %s @RESPONSEFILE [ARGUMENTS...]\n"
	       "  %s --version|-V\n"
	       "  %s help [COMMAND]\n\n"
	       "Commands:\n\n",
		c->program, c->program, c->program, c->program);
	cmd_commands(c, 0, NULL);
	printf("\n\"%s help COMMAND\" tells the options of a command.\n", c->program);
}

static int
cmd_help(struct cli *c, int argc, char **argv)
{
	const struct verb *v;

	if (!argc) {
		print_logo(c, false);
		print_all_usage(c);
		return 0;
	}
	v = verb_find(argv[0]);
	if (!v) {
		c->verb = NULL;
		return fail_syntax(c, "Invalid command '%s'", argv[0]);
	}
	print_usage(c, v, false);
	return 0;
}

static int
run_verb(struct cli *c, int argc, char **argv)
{
	c->verb = verb_find(argv[0]);
	if (!c->verb && absent_verb(argv[0]))
		return fail_plain(c, "'%s' is not available here: %s", argv[0], absent_verb(argv[0]));
	if (!c->verb)
		return fail_syntax(c, "Invalid command '%s'", argv[0]);
	if (argc == 2 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))) {
		print_usage(c, c->verb, false);
		return 0;
	}
	return c->verb->run(c, argc - 1, argv + 1);
}

static int run_line(struct cli *c, int argc, char **argv, bool in_file);

static int
run_response(struct cli *c, int argc, char **argv, bool in_file)
{
	char **words;
	int count, status;

	if (in_file)
		return fail_argument(c, "A response file cannot name another: '%s'", argv[0]);
	status = response_file(c, argv[0] + 1, argc - 1, argv + 1, &count, &words);
	if (status)
		return status;
	status = run_line(c, count, words, true);
	for (int i = 0; i < count; i++)
		free(words[i]);
	free(words);
	return status;
}

enum { G_NOLOGO, G_DETAILED, G_VERSION, G_HELP, G_SETTINGSPW, G_DUMP };

static int
run_line(struct cli *c, int argc, char **argv, bool in_file)
{
	static const struct opt options[] = {
		{ "nologo", G_NOLOGO, OPT_FLAG, 'q', 0 },
		{ "detailed-progress", G_DETAILED, OPT_FLAG, 'd', 0 },
		{ "version", G_VERSION, OPT_FLAG, 'V', 0 },
		{ NULL, G_VERSION, OPT_FLAG, 'v', 0 },
		{ "help", G_HELP, OPT_FLAG, 'h', 0 },
		{ NULL, G_HELP, OPT_FLAG, '?', 0 },
		{ "settingspw", G_SETTINGSPW, OPT_TEXT, 0, 0 },
		{ "settingspwfile", G_SETTINGSPW, OPT_TEXT, 0, 0 },
	};
	struct args a = ARGS(c, argc, argv, options);

	for (;;) {
		switch (args_next(&a)) {
		case G_NOLOGO:
			c->logo = false;
			break;
		case G_DETAILED:
			c->detailed = true;
			break;
		case G_VERSION:
			printf(VBM_VERSION "r" VBM_REVISION "\n");
			return 0;
		case G_HELP:
		case ARG_END:
			return cmd_help(c, 0, NULL);
		case G_SETTINGSPW:
			return fail_plain(c, "%s: settings are not encrypted here", a.spelled);
		case ARG_WORD:
			if (a.text[0] == '@' && a.text[1])
				return run_response(c, argc - a.at + 1, argv + a.at - 1, in_file);
			return run_verb(c, argc - a.at + 1, argv + a.at - 1);
		default:
			return 2;
		}
	}
}

int
main(int argc, char **argv)
{
	const char *slash = argc ? strrchr(argv[0], '/') : NULL;
	struct cli c = { .program = slash ? slash + 1 : argc ? argv[0] : "VBoxManage", .logo = true, .progress = -1 };
	int status;

	log_set_level(LOG_WARN);
	status = strcasecmp(c.program, "VBoxHeadless") ? run_line(&c, argc - 1, argv + 1, false)
						       : cmd_headless(&c, argc - 1, argv + 1);
	host_close(c.host);
	if (fflush(stdout) && !status)
		status = 1;
	return status;
}
