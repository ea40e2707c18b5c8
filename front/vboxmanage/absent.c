/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Commands of VirtualBox that have no place here. Each says why, so that a script's author knows what to do instead; a
 * command that is misspelled is a different mistake and is told as such.
 */
#include <string.h>

#include "front/vboxmanage/vbm.h"

/* clang-format off */
static const struct {
	const char *name, *why;
} absent_verbs[] = {
	{ "cloud", "there is no connection to a cloud provider" },
	{ "cloudprofile", "there is no connection to a cloud provider" },
	{ "encryptvm", "a machine's settings are not encrypted; 'encryptmedium' encrypts its disks" },
	{ "extpack", "there are no extension packs: what they bring, like the console server, is built in" },
	{ "mediumio", "use 'clonemedium --format RAW', or read the image with 'qemu-img'" },
	{ "modifynvram", "machines start with a BIOS, which has no such variables" },
	{ "signova", "appliances are not signed" },
	{ "updatecheck", "the package manager of the host keeps this program up to date" },
	{ "usbdevsource", "USB devices of the host cannot be given to machines" },
	{ "usbfilter", "USB devices of the host cannot be given to machines" },
};

static const struct {
	const char *name, *why; /* name: a digit at its end on the command line counts for nothing */
	const char *already;	/* the arguments that ask for what is the case: nothing to do */
} absent_controls[] = {
	{ "acpisleepbutton", "the machine has no sleep button, and no state to sleep in", NULL },
	{ "audioin", "no sound of the host is recorded", "off" },
	{ "changeuartmode", "what a serial port leads to is opened before the guest runs: use 'modifyvm --uart-mode'", NULL },
	{ "clipboard", "the clipboard is not shared with guests", "mode disabled" },
	{ "draganddrop", "nothing can be dragged into a guest or out of it", "disabled" },
	{ "plugcpu", "virtual CPUs cannot be added while a machine runs", NULL },
	{ "recording", "the screen cannot be recorded", "off" },
	{ "removeencpassword", "a machine that runs keeps the keys of its disks", NULL },
	{ "removeallencpasswords", "a machine that runs keeps the keys of its disks", NULL },
	{ "setcredentials", "nothing in a guest logs users in for others", NULL },
	{ "setscreenlayout", "the machine has one screen", NULL },
	{ "teleport", "machines cannot be teleported: save the state and adopt it on the other host", NULL },
	{ "unplugcpu", "virtual CPUs cannot be removed while a machine runs", NULL },
	{ "usbattach", "USB devices of the host cannot be given to machines", NULL },
	{ "usbdetach", "USB devices of the host cannot be given to machines", NULL },
	{ "videocap", "the screen cannot be recorded", "off" },
	{ "vm-process-priority", "a machine's process runs at the priority of what started it: use 'renice'", "default" },
	{ "vrdeproperty", "set it before the machine starts: 'modifyvm --vrde-property'", NULL },
	{ "vrdevideochannelquality", "the VNC protocol has no video channel", NULL },
	{ "webcam", "cameras of the host cannot be given to machines", "list" },
};
/* clang-format on */

const char *
absent_verb(const char *name)
{
	for (size_t i = 0; i < ARRAY_LEN(absent_verbs); i++)
		if (!strcmp(name, absent_verbs[i].name))
			return absent_verbs[i].why;
	return NULL;
}

/* The arguments are the words of `text`. */
static bool
are_words(int argc, char **argv, const char *text)
{
	for (int i = 0; text && i < argc; i++) {
		size_t n = strlen(argv[i]);

		if (strncmp(text, argv[i], n) || text[n] != (i + 1 < argc ? ' ' : 0))
			return false;
		text += n + 1;
	}
	return text && argc;
}

const char *
absent_control(const char *word, int argc, char **argv)
{
	size_t n = strcspn(word, "0123456789");

	for (size_t i = 0; i < ARRAY_LEN(absent_controls); i++)
		if (n && strlen(absent_controls[i].name) == n && !strncmp(word, absent_controls[i].name, n))
			return are_words(argc, argv, absent_controls[i].already) ? "" : absent_controls[i].why;
	return NULL;
}
