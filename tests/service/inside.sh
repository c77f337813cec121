#!/bin/sh
# Runs inside a machine with Debian's own kernel, where devices, control groups and modules are enforced for real.
# Prints one line for each thing shown, and DONE.
cd /nicd || exit 1
at() { cut -d. -f1 /proc/uptime; }
failed() { echo "FAIL $1"; journalctl --no-pager --output=cat --unit=nicd --unit=nicd-netns --lines=30; }
shows() { name=$1; shift; if said=$("$@" 2>&1); then echo "PASS $name ($(at) s)"; else failed "$name: $said"; fi; }
pid() { systemctl show --property=MainPID --value nicd; }
with() { # unit, line: changes a unit
    mkdir -p "/run/systemd/system/$1.d" && printf '[Service]\n%s\n' "$2" >"/run/systemd/system/$1.d/change.conf"
    systemctl daemon-reload && systemctl restart nicd
}
as_shipped() { rm -r "/run/systemd/system/$1.d" && systemctl daemon-reload && systemctl restart nicd; }

echo "kernel $(uname -r), systemd $(systemctl --version | head -1), controllers $(cat /sys/fs/cgroup/cgroup.controllers)"
modules=/usr/lib/modules/$(uname -r)
mv "$modules" /upgraded
shows "the package installs" sh -e /nicd/install
shows "it starts with its sockets" nicctl version
shows "without the kernel's modules health names them" sh -ec '
    nicctl -o json status >/tmp/status || :
    grep -q "modprobe bridge" /tmp/status && grep -q "modprobe veth" /tmp/status && grep -q "modprobe tun" /tmp/status'
shows "and an attach is refused and leaves nothing" sh -ec '
    ip netns add early
    nicctl network create early --subnet 198.51.100.0/24 --disable-port-security
    nicctl server add early --netns /run/netns/early
    nicctl server add vm-early --vm
    for server in early vm-early; do
        ! nicctl attach $server --network early 2>/tmp/said
        grep -q "modprobe bridge.*reboot" /tmp/said
    done
    ! ip -o link | grep nbr
    [ "$(nicctl -o json list)" = "[]" ]
    nicctl server delete early; nicctl server delete vm-early; nicctl network delete early; ip netns del early'
mv /upgraded "$modules"
shows "they are found once they are there again" sh -c '
    for _ in $(seq 100); do nicctl status | grep -q "^status *ok" && exit; sleep 0.2; done; nicctl status; exit 1'
shows "health is ok, with the tun driver's node as udev makes it" sh -c 'nicctl status | grep -q "^status *ok"'
shows "bridge, veth and tun come by themselves" sh -ec '
    ip netns add web
    nicctl network create blue --subnet 192.0.2.0/24
    nicctl server add web --netns /run/netns/web
    nicctl server add vm --vm
    nicctl attach web --network blue --wait
    nicctl attach vm --network blue'
shows "udev and networkd leave its links alone" sh -ec '
    udevadm settle
    for link in $(ip -o link | grep -o "nicd[0-9a-f]*\|nbr[0-9a-f]*" | sort -u); do
        [ -e /sys/class/net/$link ] || continue
        udevadm info --query=property --property=ID_NET_LINK_FILE --value /sys/class/net/$link | grep -q 10-nicd.link
    done'
before=$(ip -o link)
shows "a restart" systemctl restart nicd
shows "a kill" sh -c 'kill -9 $(systemctl show --property=MainPID --value nicd); nicctl version'
with nicd.service WatchdogSec=2s
stuck=$(pid); kill -STOP "$stuck"
shows "a stuck loop is noticed" sh -c "nicctl version && [ \$(systemctl show --property=MainPID --value nicd) != $stuck ]"
as_shipped nicd.service
shows "a reload" sh -c 'systemctl reload nicd && nicctl version'
shows "all of which touched no device" [ "$(ip -o link)" = "$before" ]
with nicd.service 'DeviceAllow='
shows "without the device in its list it says so" sh -c 'nicctl status | grep "DeviceAllow=/dev/net/tun rw"'
shows "and attaches no tap" sh -c '! nicctl attach vm --network blue'
as_shipped nicd.service
shows "with it it does" nicctl attach vm --network blue
anew() { systemctl stop nicd nicd-netns; nft delete table bridge nicd; systemctl start nicd; }
anew
shows "the filters are checked with frames, in a namespace that nicd-netns makes" sh -ec '
    journalctl --output=cat --unit=nicd | tail -12 | grep "checked with frames"
    nicctl status | grep -q "^status *ok"'
with nicd-netns.service 'DeviceAllow='
anew
shows "without the device in its list they are not, and health says so" sh -c 'nicctl status | grep "filters_unproven.*/dev/net/tun"'
as_shipped nicd-netns.service
systemctl stop nicd-netns
shows "with it they are" sh -c 'for _ in $(seq 50); do nicctl status | grep -q "^status *ok" && exit; sleep 0.2; done; nicctl status; exit 1'
shows "the daemon reads of no process but its own" sh -ec '
    as_nicd="nsenter --target '"$(pid)"' --mount setpriv --reuid nicd --regid nicd --clear-groups"
    $as_nicd cat /proc/self/status >/dev/null
    ! $as_nicd cat /proc/1/status'
shows "the daemon can write nowhere but in its state" sh -ec '
    for place in / /etc /usr /run /var/lib /tmp/..; do
        ! nsenter --target '"$(pid)"' --mount touch $place/nicd-was-here 2>/dev/null
    done
    nsenter --target '"$(pid)"' --mount touch /var/lib/nicd/here'
# An operator's bridge that tells VLANs apart, which the kernel of the other tests may not have.
cat >/nicd/vlans <<'END'
soon() { for _ in $(seq 100); do "$@" && return; sleep 0.1; done; nicctl list; nicctl status; bridge vlan; bridge fdb show br br-ops; false; }
row() { nicctl list | awk -v server="$1" '$3 == server'; }
is() { row "$1" | grep -q " $2  *$3 *$"; }
device() { ip -o link | grep -o "nicd$(row "$1" | cut -d' ' -f1)[0-9a-f]*" | head -1; }
fact() { nicctl explain "$(row "$1" | cut -d' ' -f1)" | grep "^vlan  *$2 "; }
reaches() { # by ARP, which the guests' kernels answer
    ip -n one neigh flush dev eth0
    ip netns exec one bash -c 'echo hello >/dev/udp/198.51.100.3/9' || true
    for _ in $(seq 15); do ip -n one neigh show 198.51.100.3 | grep -q lladdr && return; sleep 0.1; done
    false
}
healthy() { ! nicctl status | grep -q '^vlan '; }
END
lib='. /nicd/vlans;'
shows "on a bridge that tells VLANs apart, without a default pvid, ports are DOWN and the fact says why" sh -ec "$lib"'
    ip link add name br-ops type bridge vlan_filtering 1 vlan_default_pvid 0
    ip link set br-ops up
    nicctl network create ops --bridge br-ops --subnet 198.51.100.0/24
    for guest in one two; do
        ip netns add $guest
        nicctl server add $guest --netns /run/netns/$guest
        nicctl attach $guest --network ops
    done
    soon is one DOWN vlan
    soon is two DOWN vlan
    fact one no | grep "bridge vlan add dev $(device one) vid VLAN pvid untagged"
    nicctl status | grep "^vlan .*$(device two) has no pvid on bridge br-ops"
    nicctl verify | grep "^vlan " && ! nicctl verify >/dev/null
    ! reaches'
shows "with a pvid they are ACTIVE, reach each other, and have their entries in that VLAN" sh -ec "$lib"'
    for guest in one two; do bridge vlan add dev $(device $guest) vid 100 pvid untagged; done
    soon is one ACTIVE -
    soon is two ACTIVE -
    fact one yes
    reaches
    soon healthy
    nicctl verify
    for guest in one two; do
        bridge fdb show br br-ops | grep "dev $(device $guest) vlan 100 .*sticky.*static\|dev $(device $guest) vlan 100 .*static.*sticky"
    done'
shows "an entry that is deleted in that VLAN is back" sh -ec "$lib"'
    entry() { bridge fdb show br br-ops | grep "^fa:16.*dev $(device one) vlan 100 .*static"; }
    mac=$(entry | cut -d" " -f1)
    bridge fdb del $mac dev $(device one) master vlan 100
    soon entry'
shows "a pvid that leaves tagged, or is taken away, is seen at once" sh -ec "$lib"'
    bridge vlan add dev $(device one) vid 100 pvid
    soon is one DOWN vlan
    fact one no | grep "tagged"
    ! reaches
    bridge vlan add dev $(device one) vid 100 pvid untagged
    soon is one ACTIVE -
    reaches
    bridge vlan del dev $(device two) vid 100
    soon is two DOWN vlan
    is one ACTIVE -
    bridge vlan add dev $(device two) vid 200 pvid untagged
    bridge vlan add dev $(device one) vid 200 pvid untagged
    soon is two ACTIVE -
    soon is one ACTIVE -
    reaches
    soon nicctl verify'
shows "so is a bridge that ceases to tell VLANs apart, or begins to" sh -ec "$lib"'
    for guest in one two; do bridge vlan del dev $(device $guest) vid 200; done
    soon is one DOWN vlan
    ip link set br-ops type bridge vlan_filtering 0
    soon is one ACTIVE -
    soon is two ACTIVE -
    soon healthy
    reaches
    soon nicctl verify
    ip link set br-ops type bridge vlan_filtering 1
    soon is one DOWN vlan
    systemctl restart nicd
    soon is two DOWN vlan
    ip link set br-ops type bridge vlan_filtering 0 vlan_default_pvid 7
    ip link set br-ops type bridge vlan_filtering 1
    soon is one ACTIVE -
    soon is two ACTIVE -
    reaches
    soon nicctl verify
    for guest in one two; do nicctl server delete $guest --detach; ip netns del $guest; done
    nicctl network delete ops'
# What needs this kernel too, some of it in each machine.
for part in segments trunks; do [ ! -e $part.sh ] || . /nicd/$part.sh; done
shows "what it holds is let go, and the package is purged" sh -ec '
    nicctl server delete web --detach; nicctl server delete vm --detach; nicctl network delete blue
    dpkg --purge nicd'
shows "nothing is left" sh -c '[ -z "$(find / -xdev -name "*nicd*" -not -path "/proc/*" -not -path "/nicd*" -not -path "/var/log/*" -not -path "/tmp/*" -not -path "/sys/*" -not -path "/run/systemd/*")" ]'
# The other suites, on a machine without nicd. Each class of frame is sent some times.
mkdir -p "$(dirname "$(cat daemon)")" && ln -s /nicd/target/release/nicd "$(cat daemon)"
export NICD_TEST_FULL=1 NICD_FRAMES=5000 NICD_TRACKS=1
if [ -e suites/groups ]; then
    shows "security groups allow what their rules say, and nothing else" suites/groups --test-threads=1
    shows "their rules stand in the kernel while a port is in them" suites/kernel_linux --test-threads=1 groups::
fi
if [ -e suites/fleet ] && [ -e /usr/bin/etcd ]; then
    shows "ports of other hosts are in their groups, and in no other" suites/fleet --test-threads=1 members::
fi
if [ -e suites/frames ]; then
    shows "no forged frame arrives, and every honest one does" suites/frames no_forged nothing_forged mutated flushed
    shows "the same on a bridge that tells VLANs apart" env NICD_VLAN=100 suites/frames no_forged nothing_forged isolated
fi
echo DONE
systemctl --no-block poweroff
