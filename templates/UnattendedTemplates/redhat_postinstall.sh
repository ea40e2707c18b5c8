#!/bin/sh
# Lodge: the end of an installation of Fedora or of Red Hat's kind, run in the installed system by anaconda.
set -x

systemctl enable sshd

@@VBOX_COND_HAS_ADDITIONS_ISO@@
# The additions are on a disc of their own.
mkdir -p /run/lodge-additions
for drive in /dev/sr*; do
	mount -o ro "$drive" /run/lodge-additions 2>/dev/null || continue
	for run in autorun.sh install.sh VBoxLinuxAdditions.run; do
		[ -f "/run/lodge-additions/$run" ] && { sh "/run/lodge-additions/$run" --nox11; break; }
	done
	umount /run/lodge-additions
done
rmdir /run/lodge-additions
@@VBOX_COND_END@@

@@VBOX_COND_HAS_POST_INSTALL_COMMAND@@
(
@@VBOX_INSERT_POST_INSTALL_COMMAND@@
)
@@VBOX_COND_END@@
exit 0
