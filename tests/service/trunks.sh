# Trunks: a NIC that carries another network's frames with the tag of a VLAN, in the guest and on this host.
cat >/nicd/trunk <<'END'
soon() { for _ in $(seq 100); do "$@" && return; sleep 0.1; done; nicctl list; nicctl trunk list; ip -d link; nicctl explain sub; false; }
is() { nicctl list --columns name,status --no-header -o value | grep -qx "$1 $2"; }
trunk_is() { nicctl trunk list --columns status --no-header -o value | grep -qx "$1"; }
of() { nicctl list --columns "name,$2" --no-header -o value | awk -v name="$1" '$1 == name { print $2 }'; }
device() { ip -o link | grep -o "nicd$(tr -d - <"/nicd/$1.id" | cut -c-11)" | head -1; }
inside() { # the guest's device for the subport, with this VLAN
    ip -n edge link add link eth0 name tagged type vlan id "$1"
    ip -n edge link set tagged address "$(cat /nicd/sub.mac)" up
    ip -n edge addr add 198.51.100.5/24 dev tagged
}
reaches() { # by ARP, which the other guest's kernel answers
    ip -n edge neigh flush dev tagged
    ip netns exec edge bash -c 'echo hello >/dev/udp/198.51.100.9/9' || true
    for _ in $(seq 15); do ip -n edge neigh show 198.51.100.9 dev tagged | grep -q lladdr && return; sleep 0.1; done
    false
}
dropped() { nicctl -o json counters sub | grep -A12 '"dropped"' | grep -q "\"$1\": *[1-9]"; }
END
lib='. /nicd/trunk;'
shows "a trunk's subport is a VLAN device on its parent's, and ACTIVE with it" sh -ec "$lib"'
    ip netns add edge; ip netns add plain
    nicctl network create lan --subnet 192.0.2.0/24; nicctl network create dmz --subnet 198.51.100.0/24
    nicctl port create lan --name parent; nicctl port create dmz --name sub --ip 198.51.100.5
    nicctl port create dmz --name other --ip 198.51.100.9
    nicctl server add edge --netns /run/netns/edge; nicctl server add plain --netns /run/netns/plain
    nicctl attach plain --port other --wait
    nicctl trunk create parent --name edge --subport sub:101
    nicctl attach edge --port parent --wait
    soon is sub ACTIVE
    soon trunk_is ACTIVE
    of sub mac >/nicd/sub.mac; of sub id >/nicd/sub.id; of parent id >/nicd/parent.id
    ip -d link show "$(device sub)" | grep "vlan protocol 802.1Q id 101 .*LOOSE"
    ip -o link show "$(device sub)" | grep "$(device sub)@$(device parent): .*master nbr"
    nicctl verify'
shows "the guest reaches the subport's network with that tag, and with no other" sh -ec "$lib"'
    inside 101
    soon reaches
    ip -n edge link del tagged
    inside 102
    ! reaches
    ip -n edge link del tagged
    inside 101
    soon reaches'
shows "what the subport may not send is dropped" sh -ec "$lib"'
    ip -n edge link set tagged down; ip -n edge link set tagged address 02:00:00:00:00:07 up
    ! reaches
    dropped mac
    ip -n edge link set tagged down; ip -n edge link set tagged address "$(cat /nicd/sub.mac)" up
    ip -n edge addr flush dev tagged
    ip -n edge addr add 198.51.100.6/24 dev tagged
    ! reaches
    dropped arp
    ip -n edge addr flush dev tagged
    ip -n edge addr add 198.51.100.5/24 dev tagged
    soon reaches'
shows "a restart leaves it as it is, and it is DOWN while its parent is" sh -ec "$lib"'
    before=$(ip -o link)
    systemctl restart nicd
    soon trunk_is ACTIVE
    [ "$(ip -o link)" = "$before" ]
    nicctl port set parent --admin-down
    soon is sub DOWN
    ! reaches
    nicctl port set parent --admin-up
    soon is sub ACTIVE
    soon reaches
    ip link del "$(device sub)"
    soon reaches
    soon is sub ACTIVE'
shows "it goes with its parent, comes with it, and is removed from it" sh -ec "$lib"'
    nicctl detach parent --wait
    [ -z "$(device sub)" ] && [ -z "$(device parent)" ]
    nicctl attach edge --port parent --wait
    soon is sub ACTIVE
    inside 101
    soon reaches
    nicctl trunk remove edge sub
    ! reaches
    nicctl trunk add edge sub:7
    soon is sub ACTIVE
    ip -n edge link del tagged
    inside 7
    soon reaches
    nicctl verify
    nicctl server delete edge --detach; nicctl server delete plain --detach
    nicctl trunk delete edge
    for port in parent sub other; do nicctl port delete $port; done
    nicctl network delete lan; nicctl network delete dmz
    ! ip -o link show type vlan | grep nicd
    ip netns del edge; ip netns del plain'
