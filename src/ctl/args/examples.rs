//! The examples in each command's help, from which the manual pages have theirs.

use clap::Command;

use crate::manual::EXAMPLES;

/// Each command's examples. A command without any fails a test, and so does an example that is not accepted.
const LINES: &[(&str, &[&str])] = &[
    (
        "",
        &[
            "nicctl network create blue --subnet 192.0.2.0/24",
            "nicctl server add web --netns /run/netns/web",
            "nicctl attach web --network blue --wait",
            "nicctl list web",
            "nicctl list --host https://host-1.example:8443 --cert cloud-1.pem --key cloud-1.key --cacert ca.pem",
        ],
    ),
    ("network", &["nicctl network create blue --subnet 192.0.2.0/24", "nicctl network list"]),
    (
        "network create",
        &[
            "nicctl network create blue --subnet 192.0.2.0/24 --subnet 2001:db8::/64",
            "nicctl network create lan --bridge br0 --mtu 1500",
            "nicctl network create office --vlan 101 --physical physnet1",
            "nicctl network create tunnels --vxlan free --subnet 198.51.100.0/24",
            "nicctl network create plain --flat --physical physnet1",
            "nicctl network create tenants --isolated",
        ],
    ),
    ("network list", &["nicctl network list", "nicctl network list --columns name,mtu,subnets -o csv"]),
    ("network show", &["nicctl network show blue", "nicctl network show blue -o value --columns bridge"]),
    ("network set", &["nicctl network set blue --mtu 1400", "nicctl network set blue --name green --isolated true"]),
    ("network delete", &["nicctl network delete blue"]),
    ("subnet", &["nicctl subnet create blue 192.0.2.0/24", "nicctl subnet list --network blue"]),
    (
        "subnet create",
        &[
            "nicctl subnet create blue 192.0.2.0/24 --gateway 192.0.2.1 --pool 192.0.2.100-192.0.2.199",
            "nicctl subnet create blue 2001:db8::/64 --ipv6-address-mode slaac --ipv6-ra-mode slaac",
            "nicctl subnet create blue 198.51.100.0/24 --gateway none --no-dhcp",
        ],
    ),
    ("subnet list", &["nicctl subnet list", "nicctl subnet list --network blue -o wide"]),
    ("subnet show", &["nicctl subnet show 192.0.2.0/24"]),
    (
        "subnet set",
        &[
            "nicctl subnet set 192.0.2.0/24 --dns 192.0.2.53",
            "nicctl subnet set 192.0.2.0/24 --route 198.51.100.0/24,192.0.2.254",
        ],
    ),
    ("subnet delete", &["nicctl subnet delete 192.0.2.0/24"]),
    ("group", &["nicctl group create web", "nicctl group show web"]),
    ("group create", &["nicctl group create web --description HTTP"]),
    ("group list", &["nicctl group list", "nicctl group list -o wide"]),
    ("group show", &["nicctl group show web", "nicctl group show web -o json"]),
    ("group set", &["nicctl group set web --name front"]),
    ("group delete", &["nicctl group delete web"]),
    ("rule", &["nicctl rule create web --protocol tcp --port 80", "nicctl rule list web"]),
    (
        "rule create",
        &[
            "nicctl rule create web --protocol tcp --port 80 --remote 192.0.2.0/24",
            "nicctl rule create web --ethertype ipv6 --protocol icmp --icmp-type 128",
            "nicctl rule create db --protocol tcp --port 5432 --remote-group web",
        ],
    ),
    ("rule list", &["nicctl rule list", "nicctl rule list web -o wide"]),
    ("rule delete", &["nicctl rule delete 3f2a"]),
    ("server", &["nicctl server add web --netns /run/netns/web", "nicctl server list"]),
    (
        "server add",
        &[
            "nicctl server add web --netns /run/netns/web",
            "nicctl server add db --vm --owner 107:64055 --queues 4",
            "nicctl server add db --vm --qmp /run/vm/db.qmp",
        ],
    ),
    ("server list", &["nicctl server list", "nicctl server list -o wide"]),
    ("server show", &["nicctl server show web"]),
    ("server set", &["nicctl server set web --nic-limit 4", "nicctl server set db --owner 107:64055"]),
    ("server delete", &["nicctl server delete web", "nicctl server delete web --detach"]),
    ("port", &["nicctl port create blue --name web-0", "nicctl port list --network blue"]),
    (
        "port create",
        &[
            "nicctl port create blue --name web-0 --ip 192.0.2.7 --mac fa:16:3e:00:00:07",
            "nicctl port create blue --name vip --allowed-address ip-address=192.0.2.100",
            "nicctl port create blue --name web-1 --group web",
            "nicctl port create blue --limit-to-guest 100000 --limit-from-guest 50000:5000",
        ],
    ),
    ("port list", &["nicctl port list", "nicctl port list --network blue --sort addresses"]),
    ("port show", &["nicctl port show web-0", "nicctl port show web-0 -o value --columns mac"]),
    (
        "port set",
        &[
            "nicctl port set web-0 --admin-down",
            "nicctl port set web-0 --limit-to-guest 100000 --limit-from-guest none",
            "nicctl port set web-0 --allowed-address ip-address=192.0.2.100",
            "nicctl port set web-0 --group web",
            "nicctl port set web-0 --no-group",
        ],
    ),
    ("port bindings", &["nicctl port bindings web-0"]),
    ("port move", &["nicctl port move web-0 node-2", "nicctl port move web-0 node-2 --prepare"]),
    ("port delete", &["nicctl port delete web-0"]),
    ("host", &["nicctl host list", "nicctl host show node-2"]),
    ("host list", &["nicctl host list", "nicctl host list -o json"]),
    ("host show", &["nicctl host show node-2"]),
    ("host forget", &["nicctl host forget node-2"]),
    ("fleet", &["nicctl fleet status"]),
    ("fleet status", &["nicctl fleet status", "nicctl fleet status -o json"]),
    ("trunk", &["nicctl trunk create router --name router --subport dmz-0:101", "nicctl trunk list"]),
    (
        "trunk create",
        &["nicctl trunk create router --name router", "nicctl trunk create router --subport dmz-0:101 --subport lan-0:102"],
    ),
    ("trunk list", &["nicctl trunk list", "nicctl trunk list -o json"]),
    ("trunk show", &["nicctl trunk show router"]),
    ("trunk set", &["nicctl trunk set router --admin-down"]),
    ("trunk delete", &["nicctl trunk delete router"]),
    ("trunk add", &["nicctl trunk add router dmz-0:101 lan-0:102"]),
    ("trunk remove", &["nicctl trunk remove router dmz-0"]),
    (
        "attach",
        &[
            "nicctl attach web --network blue --wait",
            "nicctl attach web --network blue --ip 192.0.2.7 --ifname eth1",
            "nicctl attach web --port web-0 --wait=5",
            "nicctl attach web --network blue --group web",
            "nicctl attach web --network blue --receipt",
        ],
    ),
    ("detach", &["nicctl detach web-0", "nicctl detach web web-0 --wait"]),
    ("plan", &["nicctl plan attach web --network blue", "nicctl plan detach web-0"]),
    ("plan attach", &["nicctl plan attach web --network blue"]),
    ("plan detach", &["nicctl plan detach web-0"]),
    ("list", &["nicctl list", "nicctl list web -o wide", "nicctl list --columns name,status --no-header"]),
    ("show", &["nicctl show web-0", "nicctl show 3f2a"]),
    ("watch", &["nicctl watch", "nicctl watch --json"]),
    ("explain", &["nicctl explain web-0"]),
    ("counters", &["nicctl counters web-0", "nicctl counters web-0 -o json"]),
    ("leases", &["nicctl leases", "nicctl leases web-0"]),
    ("verify", &["nicctl verify"]),
    ("gc", &["nicctl gc", "nicctl gc --apply"]),
    ("graph", &["nicctl graph --format svg", "nicctl graph --network blue --format mermaid"]),
    ("doctor", &["nicctl doctor", "nicctl doctor -o json"]),
    ("top", &["nicctl top", "nicctl top --sort drops --interval 5", "nicctl top --once -o json"]),
    ("status", &["nicctl status", "nicctl status -o json"]),
    ("version", &["nicctl version"]),
    ("completion", &["nicctl completion bash", "nicctl completion zsh"]),
];

/// The command with the examples of its sub-commands behind their help.
pub fn add(command: Command) -> Command {
    below(command, "")
}

fn below(command: Command, path: &str) -> Command {
    let names: Vec<String> = command.get_subcommands().map(|command| command.get_name().to_owned()).collect();
    let command = names.into_iter().fold(command, |command, name| {
        let path = format!("{path} {name}");
        command.mut_subcommand(name, |command| below(command, path.trim_start()))
    });
    let lines = LINES.iter().filter(|(of, _)| *of == path).flat_map(|(_, lines)| *lines);
    let lines: String = lines.map(|line| format!("\n  {line}")).collect();
    if lines.is_empty() {
        return command;
    }
    let before = command.get_after_help().map(|help| format!("{help}\n\n")).unwrap_or_default();
    command.after_help(format!("{before}{EXAMPLES}{lines}"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::ctl::args::{Cli, command};

    fn each(command: &Command, see: &mut impl FnMut(&Command)) {
        see(command);
        command.get_subcommands().filter(|command| !command.is_hide_set()).for_each(|command| each(command, see));
    }

    #[test]
    fn each_help_has_examples_that_are_accepted() {
        let mut seen = 0;
        each(&command(), &mut |command| {
            let name = command.get_name();
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let (_, examples) = help.split_once(EXAMPLES).unwrap_or_else(|| panic!("{name} has no examples"));
            for line in examples.trim().lines().map(str::trim) {
                assert!(line.split(' ').any(|word| word == name), "{name}: {line}");
                assert!(Cli::try_parse_from(line.split(' ')).is_ok(), "{line}: {:?}", Cli::try_parse_from(line.split(' ')).err());
                seen += 1;
            }
        });
        assert_eq!(seen, LINES.iter().map(|(_, lines)| lines.len()).sum::<usize>(), "examples of no command");
    }
}
