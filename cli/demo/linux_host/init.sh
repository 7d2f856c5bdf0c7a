#!/bin/sh
# The first process of the guest: loads modules, brings up the network, then runs the commands that come in over
# a virtio serial port, one after another.  It must never wait for anything but the next command, and it ends the
# machine when the other end of the port closes, so that no guest outlives the process that started it.
#
# in:  <number> <seconds> <base64 of a shell script>
# out: ready <kernel version>
#      begin <number>, the base64 of standard output, :err, the base64 of standard error, :end <number> <status>
#      A status of "late" says that the script was killed after its seconds.
export PATH=/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin HOME=/root
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/shm /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /run
mkdir -p /run/command
while read -r module; do
    insmod "$module" || echo "init: $module does not load" >/dev/kmsg
done </etc/modules-in-order
ip link set lo up
ip addr add 10.0.2.15/24 dev eth0
ip link set eth0 up
ip route add default via 10.0.2.2
dmesg -n 7

port=
for name in /sys/class/virtio-ports/*/name; do
    [ "$(cat "$name")" = ws7000.command ] && port=$(basename "$(dirname "$name")")
done
exec 3<>"/dev/$port" || poweroff -f
cd /run/command || poweroff -f
printf 'ready %s\n' "$(uname -r)" >&3
while read -r number seconds text <&3; do
    rm -f status
    printf '%s' "$text" | base64 -d >script
    timeout -s KILL "$seconds" sh -c 'sh script; echo $? >status' >out 2>err </dev/null 3>&-
    status=late
    [ -s status ] && read -r status <status
    {
        printf 'begin %s\n' "$number"
        base64 out
        printf ':err\n'
        base64 err
        printf ':end %s %s\n' "$number" "$status"
    } >answer
    cat answer >&3
done
poweroff -f
