"""The `openstack` command as it is typed, with security groups: it needs TCP, so a proxy carries its connections to the socket."""

import json
import os
import subprocess
import sys

import pytest

from conftest import SOCKET
from unix import Proxy


@pytest.fixture
def openstack():
    """Runs a command line; its answer as JSON."""
    with Proxy(SOCKET) as proxy:
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": "/nonexistent",
            "PYTHONDONTWRITEBYTECODE": "1",
            "OS_AUTH_TYPE": "none",
            "OS_ENDPOINT": proxy.base + "/v2.0",
            "OS_NETWORK_ENDPOINT_OVERRIDE": proxy.base + "/v2.0",
        }

        def run(line, fails=None):
            command = [os.path.join(os.path.dirname(sys.executable), "openstack"), *line.split()]
            if "delete" not in command and " set " not in line and "unset" not in command:
                command += ["--format", "json"]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
            if fails is not None:
                assert done.returncode != 0 and fails in done.stderr, f"{line}: {done.stdout} {done.stderr}"
                return None
            assert done.returncode == 0, f"{line}: {done.stderr}"
            return json.loads(done.stdout) if done.stdout.strip() else None

        yield run
        proxy.shutdown()


def test_groups_rules_and_ports_are_made_shown_changed_and_deleted(openstack, network, api):
    # Each command takes about a second of Python's: what it needs is shown once.
    web = openstack("security group create web --description HTTP")
    assert (web["name"], web["description"], web["stateful"]) == ("web", "HTTP", True)
    rule = openstack("security group rule create web --protocol tcp --dst-port 80:81 --remote-ip 192.0.2.0/24")
    assert (rule["protocol"], rule["port_range_min"], rule["port_range_max"]) == ("tcp", 80, 81)
    ping = openstack("security group rule create web --ethertype IPv6 --protocol icmp --icmp-type 128 --remote-group web")
    assert (ping["protocol"], ping["ether_type"], ping["remote_group_id"]) == ("ipv6-icmp", "IPv6", web["id"])
    openstack("security group rule create web --protocol tcp --dst-port 80:81 --remote-ip 192.0.2.7/24", fails="already exists")
    assert len(openstack("security group rule list web")) == 4
    port = openstack(f"port create --network {network} --security-group web front")
    assert port["security_group_ids"] == [web["id"]]
    openstack("security group delete web", fails="in use")
    openstack("port unset front --security-group web")
    openstack(f"security group rule delete {rule['id']}")
    openstack("security group delete web")
    assert openstack("security group list") == []
    openstack("port delete front")


def test_trunks_are_made_shown_changed_and_deleted(openstack, network, api):
    dmz = api.network("198.51.100.0/24", name="dmz")
    for port, on in (("router", network), ("router-dmz", dmz), ("router-lab", dmz)):
        openstack(f"port create --network {on} {port}")
    tagged = "segmentation-type=vlan,segmentation-id"
    trunk = openstack(f"network trunk create --parent-port router --subport port=router-dmz,{tagged}=101 edge")
    assert (trunk["name"], trunk["status"], len(trunk["sub_ports"])) == ("edge", "DOWN", 1)
    openstack(f"network trunk set edge --subport port=router-lab,{tagged}=102 --description both")
    openstack(f"network trunk set edge --subport port=router-lab,{tagged}=101", fails="in use")
    subports = openstack("network subport list --trunk edge")
    assert sorted(sub["Segmentation ID"] for sub in subports) == [101, 102]
    assert [trunk["Name"] for trunk in openstack("network trunk list")] == ["edge"]
    assert openstack("network trunk show edge")["description"] == "both"
    assert len(openstack("port show router")["trunk_details"]["sub_ports"]) == 2
    openstack("port delete router", fails="parent port")
    openstack("network trunk set edge --disable")
    openstack("network trunk unset edge --subport router-dmz", fails="disabled")
    openstack("network trunk set edge --enable")
    openstack("network trunk unset edge --subport router-dmz")
    assert len(openstack("network trunk show edge")["sub_ports"]) == 1
    openstack("network trunk delete edge")
    for port in ("router", "router-dmz", "router-lab"):
        openstack(f"port delete {port}")
    api.call("DELETE", f"/v2.0/networks/{dmz}", expect=204)
