#!/bin/sh
# Lodge: run by the live system's "local" service: setup-alpine with answers, then what they do not cover.
exec >/dev/console 2>&1
disk=
for d in /sys/block/sd? /sys/block/vd? /sys/block/nvme?n1; do
	[ -e "$d" ] && { disk=${d##*/}; break; }
done
[ -n "$disk" ] || { echo "Lodge: there is no disk to install to"; exit 1; }
echo "DISKOPTS=\"-m sys /dev/$disk\"" >>/etc/lodge.answers
export ERASE_DISKS=/dev/$disk
setup-alpine -e -f /etc/lodge.answers || exit 1

root=
for part in /dev/"$disk"*3 /dev/"$disk"*2 /dev/"$disk"*1; do
	[ -b "$part" ] && mount -t ext4 "$part" /mnt 2>/dev/null && {
		[ -d /mnt/etc/apk ] && { root=$part; break; }
		umount /mnt
	}
done
[ -n "$root" ] || { echo "Lodge: the installed system is not found"; exit 1; }
mount --bind /dev /mnt/dev
mount -t proc proc /mnt/proc
cp /etc/resolv.conf /mnt/etc/resolv.conf
cat >/mnt/root/vboxpostinstall.sh <<'LODGE_POST_INSTALL'
adduser -D -g @@VBOX_INSERT_USER_FULL_NAME_SH@@ @@VBOX_INSERT_USER_LOGIN_SH@@
addgroup @@VBOX_INSERT_USER_LOGIN_SH@@ wheel
echo @@VBOX_INSERT_USER_LOGIN_SH@@:@@VBOX_INSERT_USER_PASSWORD_CRYPTED_SH@@ | chpasswd -e
echo root:@@VBOX_INSERT_ROOT_PASSWORD_CRYPTED_SH@@ | chpasswd -e
apk add eject sudo
echo '%wheel ALL=(ALL) ALL' >/etc/sudoers.d/wheel
@@VBOX_COND_IS_INSTALLING_ADDITIONS@@
apk add qemu-guest-agent && rc-update add qemu-guest-agent default
@@VBOX_COND_END@@
@@VBOX_COND_HAS_POST_INSTALL_COMMAND@@
(
@@VBOX_INSERT_POST_INSTALL_COMMAND@@
)
@@VBOX_COND_END@@
LODGE_POST_INSTALL
chroot /mnt /bin/sh /root/vboxpostinstall.sh >/mnt/var/log/lodge-unattended.log 2>&1
rm -f /mnt/root/vboxpostinstall.sh
umount /mnt/dev /mnt/proc /mnt
# The disc of the answers stays: it starts the disk, the installer's would start the installer.
reboot
