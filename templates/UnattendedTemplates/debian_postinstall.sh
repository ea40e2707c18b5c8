#!/bin/sh
# Lodge: the end of an installation of Debian or Ubuntu, run in the installed system by its installer.
exec >>/var/log/lodge-unattended.log 2>&1
set -x

usermod -aG sudo @@VBOX_INSERT_USER_LOGIN_SH@@

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

# The answers have done their work: putting their disc out tells the host so. The installer's disc has to be out before,
# or the next start would be from it; while it cannot be put out, the disc of the answers starts the disk.
left='' answers=''
for drive in /dev/sr*; do
	label=$(blkid -p -s LABEL -o value "$drive" 2>/dev/null)
	case $label in
	LODGE_AUX | CIDATA) answers=$drive ;;
	?*) eject "$drive" || left=$drive ;;
	esac
done
[ -n "$left" ] || [ -z "$answers" ] || eject "$answers"
exit 0
