"""A daemon is there already (tests/clients.rs starts it in a network namespace of its own); these make things on it.

Each test has networks and servers of its own and lets them go; what is left afterwards is a failure of its own.
"""

import os
import subprocess
import uuid

import pytest

import unix

SOCKET = os.environ["NICD_TEST_SOCKET"]
BASE = "http://localhost"


class Api:
    """Plain HTTP, for what a client under test is not meant to do itself."""

    def __init__(self):
        self.http = unix.session(SOCKET)

    def call(self, method, path, body=None, expect=None, **rest):
        answer = self.http.request(method, BASE + path, json=body, **rest)
        if expect is not None:
            assert answer.status_code == expect, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer

    def get(self, path, **rest):
        return self.call("GET", path, expect=200, **rest).json()

    def network(self, *cidrs, **more):
        """A network with subnets; its id."""
        network = self.call("POST", "/v2.0/networks", {"network": {"name": "blue", **more}}, 201).json()["network"]
        for cidr in cidrs:
            self.call("POST", "/v2.0/subnets", {"subnet": {"network_id": network["id"], "cidr": cidr}}, 201)
        return network["id"]

    def server(self, guest, **more):
        """A server; its id."""
        server = str(uuid.uuid4())
        self.call("PUT", f"/nicd/v1/servers/{server}", {"server": {"guest": guest, **more}}, 201)
        return server

    def gone(self, port):
        """Waits until the kernel has let a detached port go: the answer to a re-attach and the list say when."""
        with self.http.get(BASE + "/nicd/v1/events", headers={"Accept": "application/x-ndjson"}, stream=True) as events:
            # The stream is there before the first look, so that no end is missed between the two.
            lines = events.iter_lines()
            while True:
                shown = self.call("GET", f"/v2.0/ports/{port}")
                if shown.status_code == 404 or shown.json()["port"]["nicd:phase"] == "unbound":
                    return
                next(lines)

    def clear(self):
        """Lets everything go."""
        for server in self.get("/nicd/v1/servers")["servers"]:
            self.call("DELETE", f"/nicd/v1/servers/{server['id']}?detach=true", expect=204)
        for port in self.get("/v2.0/ports")["ports"]:
            self.call("DELETE", f"/v2.0/ports/{port['id']}")
            self.gone(port["id"])
        for group in self.get("/v2.0/security-groups")["security_groups"]:
            self.call("DELETE", f"/v2.0/security-groups/{group['id']}", expect=204)
        for network in self.get("/v2.0/networks")["networks"]:
            self.call("DELETE", f"/v2.0/networks/{network['id']}", expect=204)


@pytest.fixture
def api():
    api = Api()
    yield api
    api.clear()
    for what in ("networks", "subnets", "ports"):
        assert api.get(f"/v2.0/{what}")[what] == []
    assert api.get("/nicd/v1/servers")["servers"] == []


@pytest.fixture
def network(api):
    """A network with an IPv4 and an IPv6 subnet."""
    return api.network("192.0.2.0/24", "2001:db8::/64")


@pytest.fixture
def vm(api):
    """A virtual machine: its NICs stay DOWN, as nobody opens their taps."""
    return api.server({"kind": "vm"})


@pytest.fixture
def guest(api):
    """A guest that is a network namespace: its NICs are ACTIVE at once."""
    name = f"guest-{uuid.uuid4().hex[:8]}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    yield api.server({"kind": "netns", "path": f"/run/netns/{name}"})
    subprocess.run(["ip", "netns", "del", name], check=True)
