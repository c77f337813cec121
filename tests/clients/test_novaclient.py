"""python-novaclient, as a library and as the program `nova`: attach, list, show and detach in each form, at microversions before
and after each change of the API; and with Rackspace's extensions to it.
"""

import subprocess
import sys

import os_networksv2_python_novaclient_ext
import os_virtual_interfacesv2_python_novaclient_ext
import pytest
from keystoneauth1 import session as keystone
from keystoneauth1 import token_endpoint
from novaclient import client, exceptions, extension

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


# The program, which goes by TCP ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def proxy():
    with unix.Proxy(SOCKET) as proxy:
        yield proxy
        proxy.shutdown()


def program(proxy, version, *arguments, base="/v2.1/demo"):
    """Runs `nova`; what it prints as a table, by its first column."""
    where = ["--os-auth-type", "admin_token", "--os-token", "x", "--os-endpoint", proxy.base + base]
    command = [sys.executable, "-W", "ignore", "-m", "novaclient.shell", *where, "--os-compute-api-version", version]
    # Asked for, and not used: the token is given.
    environment = {"OS_PROJECT_NAME": "demo", "OS_AUTH_URL": proxy.base, "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command + list(arguments), env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in done.stdout.splitlines() if line.startswith("|")]
    return {row[0]: row[1:] for row in rows}


@pytest.mark.parametrize("version", ["2.1", "2.46", "2.47", "2.latest"])
def test_the_program_shows_a_server_with_its_flavor(version, proxy, network, api):
    server = api.server({"kind": "vm"}, name="web")
    nova().servers.interface_attach(server, None, network, None)
    shown = program(proxy, version, "show", "web")
    assert (shown["id"], shown["name"], shown["status"]) == ([server], ["web"], ["ACTIVE"])
    assert shown["blue network"] == ["192.0.2.2, 2001:db8::2"]
    assert shown["image"] == ["Attempt to boot from volume - no image supplied"]
    flavor = {"flavor": ["nicd (nicd)"]} if version in ("2.1", "2.46") else {"flavor:original_name": ["nicd"]}
    assert flavor.items() <= shown.items(), shown


def test_the_program_lists_servers_flavors_and_interfaces(proxy, network, api):
    server = api.server({"kind": "vm"}, name="web")
    nova().servers.interface_attach(server, None, network, None)
    assert program(proxy, "2.70", "show", "--minimal", "web")["flavor"] == ["nicd"]
    assert program(proxy, "2.70", "list")[server][0] == "web"
    assert program(proxy, "2.1", "flavor-list", "--extra-specs")["nicd"][0] == "nicd"
    for version in ("2.1", "2.70"):
        flavor = program(proxy, version, "flavor-show", "nicd")
        assert (flavor["id"], flavor["ram"], flavor["extra_specs"]) == (["nicd"], ["0"], ["{}"])
    assert network in program(proxy, "2.70", "interface-list", "web")["DOWN"]
    assert program(proxy, "2.70", "version-list")["v2.1"][0] == "CURRENT"


def test_the_program_attaches_and_detaches(proxy, network, guest, api):
    program(proxy, "2.70", "interface-attach", "--net-id", network, "--fixed-ip", "192.0.2.9", guest)
    [made] = nova().servers.interface_list(guest)
    assert made.fixed_ips[0]["ip_address"] == "192.0.2.9"
    program(proxy, "2.70", "interface-detach", guest, made.port_id)
    api.gone(made.port_id)
    assert nova().servers.interface_list(guest) == []


def test_there_is_one_flavor():
    flavors = nova("2.1").flavors
    [listed] = flavors.list()
    assert flavors.get(listed.id).name == flavors.find(name="nicd").id == "nicd"
    assert flavors.list(detailed=False, limit=1) == [listed]
    assert flavors.get("nicd").get_keys() == {}
    for unknown in ("m1.small", "1", NOBODY):
        with pytest.raises(exceptions.NotFound) as raised:
            flavors.get(unknown)
        assert unknown in raised.value.message


# Rackspace's extensions ------------------------------------------------------------------------------------------------


@pytest.fixture(params=["", "/v2/658405"], ids=["bare", "by tenant"])
def rackspace(request):
    base = BASE + request.param
    session = keystone.Session(auth=token_endpoint.Token(base, "x"), session=unix.session(SOCKET))
    modules = (os_networksv2_python_novaclient_ext, os_virtual_interfacesv2_python_novaclient_ext)
    known = [extension.Extension(module.__name__, module) for module in modules]
    made = client.Client("2", session=session, endpoint_override=base, extensions=known)
    return made.os_networksv2_python_novaclient_ext, made.os_virtual_interfacesv2_python_novaclient_ext


def test_networks_are_found_by_rackspaces_extension_and_attached_by_it(rackspace, api, vm):
    networks, interfaces = rackspace
    ids = {
        "both": api.network("192.0.2.0/24", "2001:db8::/64", name="both"),
        "six": api.network("2001:db8:0:6::/64", name="six"),
        "none": api.network(name="none"),
    }
    cidrs = {"both": "192.0.2.0/24", "six": "2001:0db8:0000:0006:0000:0000:0000:0000/64", "none": None}
    listed = {network.label: network for network in networks.list()}
    assert {label: network.id for label, network in listed.items()} == ids
    assert {label: getattr(network, "cidr", None) for label, network in listed.items()} == cidrs
    assert networks.find(label="six").id == ids["six"]
    shown = networks.get(ids["both"])
    assert shown.to_dict() == {"id": ids["both"], "label": "both", "cidr": "192.0.2.0/24"}
    for unknown in (NOBODY, "both"):
        with pytest.raises(exceptions.NotFound):
            networks.get(unknown)
    for change in (lambda: networks.create("new", "198.51.100.0/24"), lambda: networks.delete(ids["none"])):
        with pytest.raises(exceptions.MethodNotAllowed):
            change()
    [made] = interfaces.create(shown.id, vm)
    assert made["ip_addresses"][0] == {"address": "192.0.2.2", "network_id": shown.id, "network_label": "both"}
    [interface] = interfaces.list(vm)
    assert (interface.id, interface.mac_address) == (made["id"], made["mac_address"])
    interfaces.delete(vm, interface.id)
