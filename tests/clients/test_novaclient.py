"""python-novaclient: attach, list and detach in each form, at microversions before and after each change of the API."""

import pytest
from keystoneauth1 import session as keystone
from keystoneauth1 import token_endpoint
from novaclient import client, exceptions

import unix
from conftest import BASE, SOCKET

NOBODY = "9c1f5d6e-0000-4000-8000-000000000000"

# The first; both sides of the tag in requests; both sides of the tag in answers.
VERSIONS = ["2.1", "2.27", "2.48", "2.49", "2.69", "2.70"]


def nova(version="2.70", base=BASE + "/v2.1"):
    auth = token_endpoint.Token(base, "any token at all")
    session = keystone.Session(auth=auth, session=unix.session(SOCKET))
    return client.Client(version, session=session, endpoint_override=base)


@pytest.mark.parametrize("version", VERSIONS)
def test_interfaces_come_and_go_at_each_microversion(version, network, guest, api):
    servers = nova(version).servers
    made = servers.interface_attach(guest, None, network, None)
    assert (made.net_id, made.port_state) == (network, "ACTIVE")
    assert [ip["ip_address"] for ip in made.fixed_ips] == ["192.0.2.2", "2001:db8::2"]
    assert [nic.port_id for nic in servers.interface_list(guest)] == [made.port_id]
    assert [nic.mac_addr for nic in servers.interface_list(guest)] == [made.mac_addr]
    assert ("tag" in made.to_dict()) == (version == "2.70")
    servers.interface_detach(guest, made.port_id)
    api.gone(made.port_id)
    assert servers.interface_list(guest) == []


@pytest.mark.parametrize("base", ["/v2.1", "/v2", "/v2.1/aProject", "/v2/0123456789abcdef"])
def test_every_base_of_the_compute_api_is_the_same(base, network, vm):
    servers = nova("2.1", BASE + base).servers
    made = servers.interface_attach(vm, None, network, None)
    assert [nic.port_id for nic in nova().servers.interface_list(vm)] == [made.port_id]
    assert servers.get(vm).id == vm
    servers.interface_detach(vm, made.port_id)


def test_an_address_a_port_and_a_tag_can_be_given(network, guest, api):
    servers = nova("2.70").servers
    made = servers.interface_attach(guest, None, network, "192.0.2.77")
    assert [ip["ip_address"] for ip in made.fixed_ips] == ["192.0.2.77"]
    port = api.call("POST", "/v2.0/ports", {"port": {"network_id": network}}, 201).json()["port"]
    made = servers.interface_attach(guest, port["id"], None, None)
    assert (made.port_id, made.mac_addr) == (port["id"], port["mac_address"])
    made = servers.interface_attach(guest, None, network, None, tag="nic-1")
    assert made.tag == "nic-1"
    tags = {nic.port_id: nic.to_dict()["tag"] for nic in servers.interface_list(guest)}
    assert len(tags) == 3 and tags.pop(made.port_id) == "nic-1" and set(tags.values()) == {None}


def test_a_server_is_looked_up_by_id_and_by_name(api):
    named = api.server({"kind": "vm"}, name="by name")
    assert nova().servers.get(named).status == "ACTIVE"
    assert [server.id for server in nova().servers.list(detailed=False)] == [named]
    assert nova("2.1").servers.get(named).interface_list() == []


REFUSED = [
    (exceptions.NotFound, "Instance", lambda network: (NOBODY, None, network, None)),
    (exceptions.NotFound, "Network", lambda network: (None, None, NOBODY, None)),
    (exceptions.NotFound, "Port id", lambda network: (None, NOBODY, None, None)),
    (exceptions.BadRequest, "Must not input both", lambda network: (None, NOBODY, network, None)),
    (exceptions.BadRequest, "Must input network_id", lambda network: (None, None, None, "192.0.2.9")),
    (exceptions.BadRequest, "Invalid input for field/attribute", lambda network: (None, None, "blue", None)),
    (exceptions.BadRequest, "not in any subnet", lambda network: (None, None, network, "203.0.113.1")),
    (exceptions.Conflict, "already in use", lambda network: (None, None, network, "192.0.2.5")),
]


@pytest.mark.parametrize("kind, words, how", REFUSED, ids=[row[1].replace(" ", "-") for row in REFUSED])
def test_refused_attaches_raise_the_exception_of_their_kind(kind, words, how, network, vm):
    servers = nova().servers
    servers.interface_attach(vm, None, network, "192.0.2.5")
    server, port, net, address = how(network)
    with pytest.raises(kind) as raised:
        servers.interface_attach(server or vm, port, net, address)
    assert words in raised.value.message, raised.value.message
    assert raised.value.request_id.startswith("req-")


def test_a_microversion_beyond_ours_is_not_acceptable():
    with pytest.raises(exceptions.NotAcceptable):
        nova("2.71").servers.list(detailed=False)


def test_what_is_not_there_cannot_be_detached(network, vm):
    servers = nova().servers
    with pytest.raises(exceptions.NotFound):
        servers.interface_detach(vm, NOBODY)
    with pytest.raises(exceptions.NotFound):
        servers.interface_detach(NOBODY, NOBODY)
