# Networks on physical networks, by an uplink whose other end is in another namespace, and on an operator's bridge that tells VLANs
# apart. Sourced by inside.sh.
cat >/nicd/segments-lib <<'EOF'
soon() { for _ in $(seq 100); do "$@" && return; sleep 0.1; done; nicctl list; nicctl status; ip -d link; bridge vlan; false; }
not() { if "$@"; then echo "unexpected: $*"; false; fi; }
is() { nicctl list | awk -v server="$1" '$3 == server' | grep -q " $2  *$3 *$"; }
port() { nicctl list | awk -v server="$1" '$3 == server { print $1 }'; }
device() { ip -o link | grep -o "nicd$(port "$1")[0-9a-f]*" | head -1; }
bridge_of() { nicctl network show "$1" -o value --columns bridge; }
vlan_of() { ip -o link show type vlan | grep -o "nvl$(bridge_of "$1" | cut -c4-)" | head -1; }
has() { ip -o link show "$1" 2>/dev/null | grep -q "$2"; } # a link, and what it is like
reaches() { # by ARP, which the kernels of both ends answer
    ip -n "$1" neigh flush dev eth0
    ip netns exec "$1" bash -c "echo hello >/dev/udp/$2/9" || true
    for _ in $(seq 15); do ip -n "$1" neigh show "$2" | grep -q lladdr && return; sleep 0.1; done
    false
}
guest() { ip netns add "$1"; nicctl server add "$1" --netns "/run/netns/$1" >/dev/null; nicctl attach "$1" --network "$2" >/dev/null; }
gone() { nicctl server delete "$1" --detach >/dev/null && ip netns del "$1"; }
uplink() { # name: one whose other end is in the namespace "far"
    ip link add "$1" type veth peer name "far-$1" netns far
    ip -n far link set "far-$1" up
    ip link set "$1" up
}
far_vlan() { # uplink, id, address, protocol
    ip -n far link add "v$2" link "far-$1" type vlan protocol "${4:-802.1Q}" id "$2"
    ip -n far addr add "$3" dev "v$2"
    ip -n far link set "v$2" up
}
EOF
seg='. /nicd/segments-lib;'
cp /etc/nicd/nicd.toml /nicd/nicd.toml.before
cat >/etc/nicd/nicd.toml <<'EOF'
[physical_networks]
physnet1 = "up1"
outer = { device = "up2", qinq = true }
plain = { device = "up3", adopt = true }
strict = "up3b"
ops = { bridge = "br-seg" }
loop = "lo"
[segments]
vlan = "200-201"
EOF
systemctl reload nicd
shows "an uplink that is not there, is the loopback, or is not to be adopted is refused, and nothing is made" sh -ec "$seg"'
    ip netns add far
    refused() { word=$1; shift; not nicctl network create x "$@" 2>/tmp/said; grep -q "$word" /tmp/said || { cat /tmp/said; false; }; }
    refused "not on this host" --vlan 5 --physical physnet1
    refused "loopback" --vlan 5 --physical loop
    refused "physnet1" --vlan 5 --physical nowhere
    uplink up3b
    refused "adopt = true" --flat --physical strict
    ip link del up3b
    not nicctl network show x'
shows "two VLANs of one uplink reach the far side by their tags, and not each other" sh -ec "$seg"'
    uplink up1
    far_vlan up1 101 192.0.2.250/24
    far_vlan up1 200 198.51.100.250/24
    ip addr add 203.0.113.1/24 dev up1
    before=$(ip -o -4 addr show dev up1; cat /sys/class/net/up1/address /sys/class/net/up1/mtu)
    nicctl network create red --vlan 101 --physical physnet1 --subnet 192.0.2.0/24
    nicctl network create teal --vlan free --physical physnet1 --subnet 198.51.100.0/24
    [ "$(nicctl network show teal -o value --columns segment)" = 200 ]
    not nicctl network create again --vlan 101 --physical physnet1 2>/tmp/said
    grep "in use" /tmp/said
    guest one red; guest two teal
    soon is one ACTIVE -; soon is two ACTIVE -
    soon reaches one 192.0.2.250; soon reaches two 198.51.100.250
    ip netns exec one ip addr add 198.51.100.77/24 dev eth0 && not reaches one 198.51.100.250
    ip netns exec one ip addr del 198.51.100.77/24 dev eth0
    [ "$before" = "$(ip -o -4 addr show dev up1; cat /sys/class/net/up1/address /sys/class/net/up1/mtu)" ]
    nicctl network show red -o value --columns uplink | grep "^up1$"
    ip -d link show $(vlan_of red) | grep "id 101"
    ip link show $(vlan_of red) | grep "master $(bridge_of red)"
    nicctl graph --format dot | grep "VLAN 101 on up1"
    nicctl verify'
shows "the VLAN device comes back when it is deleted, set down, moved out, or given another id" sh -ec "$seg"'
    back() { soon is one ACTIVE - && soon reaches one 192.0.2.250; }
    mark=nicd-vlan-$(nicctl -o json network show red | grep -o "[0-9a-f]\{8\}-[-0-9a-f]\{27\}" | head -1)
    ip link del $mark; soon has $mark "@up1: "; back
    ip link set $mark down; soon has $mark "[<,]UP[,>]"; back
    ip link set $mark nomaster; soon has $mark " master $(bridge_of red) "; back
    ip link property del dev $mark altname $mark; soon has $mark " master $(bridge_of red) "; back
    name=$(vlan_of red)
    ip link del $name && ip link add $name link up1 type vlan id 77 && ip link del $name
    back
    reaches two 198.51.100.250
    soon nicctl verify'
shows "an uplink that is set down or deleted takes its ports DOWN, and they heal when it is back with another index" sh -ec "$seg"'
    ip link set up1 down
    soon is one DOWN uplink_down; soon is two DOWN uplink_down
    nicctl explain $(port one) | grep "^uplink  *no .*ip link set up1 up"
    nicctl status | grep uplink_down
    ip link set up1 up
    soon is one ACTIVE -; soon is two ACTIVE -; soon reaches one 192.0.2.250
    ip link del up1
    soon is one DOWN uplink_gone; soon is two DOWN uplink_gone
    nicctl doctor | grep uplink_gone || true
    uplink up1
    far_vlan up1 101 192.0.2.250/24; far_vlan up1 200 198.51.100.250/24
    soon is one ACTIVE -; soon is two ACTIVE -
    soon reaches one 192.0.2.250; soon reaches two 198.51.100.250'
shows "a restart and a kill change nothing of it" sh -ec "$seg"'
    before=$(ip -o link | grep "nvl\|nbr\|nicd")
    systemctl restart nicd; soon is one ACTIVE -
    kill -9 $(systemctl show --property=MainPID --value nicd); soon is two ACTIVE -
    [ "$before" = "$(ip -o link | grep "nvl\|nbr\|nicd")" ]
    reaches one 192.0.2.250'
shows "deleted networks leave nothing on the uplink" sh -ec "$seg"'
    gone one; gone two
    nicctl network delete red; nicctl network delete teal
    # The bridge of the network before stays.
    [ -z "$(ip -o link | grep nvl)" ] && [ "$(ip -o link show type bridge | grep -c nbr)" = 1 ]'
shows "QinQ tags by 802.1ad, and the MTU leaves room for guests own tags" sh -ec "$seg"'
    uplink up2; far_vlan up2 30 192.0.2.250/24 802.1ad
    nicctl network create outer --vlan 30 --physical outer --subnet 192.0.2.0/24
    [ "$(nicctl network show outer -o value --columns mtu)" = 1496 ]
    not nicctl network create big --vlan 31 --physical outer --mtu 1500 2>/tmp/said
    grep "MTU 1500 is above the 1496" /tmp/said
    guest three outer
    soon is three ACTIVE -; soon reaches three 192.0.2.250
    ip -d link show $(vlan_of outer) | grep "802.1ad id 30"
    ip netns exec three ip link show eth0 | grep "mtu 1496"
    gone three; nicctl network delete outer; ip link del up2'
shows "a flat network takes its uplink only without addresses, and gives it back as it was" sh -ec "$seg"'
    uplink up3; ip -n far addr add 192.0.2.250/24 dev far-up3
    ip addr add 203.0.113.5/24 dev up3
    not nicctl network create plain --flat --physical plain 2>/tmp/said
    grep "the address 203.0.113.5/24" /tmp/said
    ip addr del 203.0.113.5/24 dev up3; ip route add 203.0.113.0/24 dev up3
    not nicctl network create plain --flat --physical plain 2>/tmp/said
    grep "the route to 203.0.113.0/24" /tmp/said
    ip route del 203.0.113.0/24 dev up3
    before=$(ip -d -o link show up3 | sed "s/ *allmulti [0-9]*//")
    nicctl network create plain --flat --physical plain --subnet 192.0.2.0/24
    not nicctl network create other --flat --physical plain 2>/tmp/said
    grep "in use" /tmp/said
    guest four plain
    soon is four ACTIVE -; soon reaches four 192.0.2.250
    ip link set up3 nomaster; soon has up3 " master $(bridge_of plain) "; soon is four ACTIVE -; soon reaches four 192.0.2.250
    gone four; nicctl network delete plain
    soon [ "$before" = "$(ip -d -o link show up3 | sed "s/ *allmulti [0-9]*//")" ]
    ip link del up3'
shows "on an operator bridge that filters VLANs each port has its network as pvid alone, and has it again" sh -ec "$seg"'
    ip link add name br-seg type bridge
    ip link set br-seg up
    not nicctl network create tagged --vlan 41 --physical ops 2>/tmp/said
    grep "vlan_filtering 1" /tmp/said
    ip link set br-seg type bridge vlan_filtering 1
    uplink up4; ip link set up4 master br-seg; bridge vlan add dev up4 vid 41; far_vlan up4 41 192.0.2.250/24
    before=$(ip -d -o link show br-seg | grep -o "mtu [0-9]*\|stp_state [0-9]\|vlan_[a-z_]* [0-9]*\|mcast_snooping [0-9]")
    nicctl network create tagged --vlan 41 --physical ops --subnet 192.0.2.0/24
    nicctl network create beside --vlan 42 --physical ops --subnet 192.0.2.0/24
    guest five tagged; guest six beside
    soon is five ACTIVE -; soon is six ACTIVE -
    soon reaches five 192.0.2.250; not reaches six 192.0.2.250
    vlans() { bridge vlan show dev $(device five) | sed "1d; s/^$(device five)//" | tr -s " " | tr "\n" ";"; }
    right() { [ "$(vlans)" = " 41 PVID Egress Untagged;" ]; }
    right || { vlans; false; }
    bridge vlan add dev $(device five) vid 1 pvid untagged; soon right
    bridge vlan add dev $(device five) vid 7; soon right
    bridge vlan del dev $(device five) vid 41; soon right
    soon is five ACTIVE -; soon reaches five 192.0.2.250
    [ "$before" = "$(ip -d -o link show br-seg | grep -o "mtu [0-9]*\|stp_state [0-9]\|vlan_[a-z_]* [0-9]*\|mcast_snooping [0-9]")" ]
    soon nicctl verify
    gone five; gone six
    nicctl network delete tagged; nicctl network delete beside
    ip link del br-seg; ip netns del far'
cp /nicd/nicd.toml.before /etc/nicd/nicd.toml
systemctl reload nicd
