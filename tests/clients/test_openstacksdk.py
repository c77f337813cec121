"""openstacksdk as it is used against a cloud, with the endpoints overridden: compute and network on one socket."""

import uuid

import openstack
import pytest
from keystoneauth1 import noauth
from keystoneauth1 import session as keystone
from openstack import exceptions

import unix
from conftest import BASE, SOCKET

NOBODY = "9c1f5d6e-0000-4000-8000-000000000000"


def connection(**more):
    auth = keystone.Session(auth=noauth.NoAuth(endpoint=BASE), session=unix.session(SOCKET))
    return openstack.connection.Connection(
        session=auth, compute_endpoint_override=BASE + "/v2.1", network_endpoint_override=BASE + "/v2.0", **more
    )


@pytest.fixture
def cloud():
    return connection()


@pytest.fixture
def blue(cloud, api):
    """A network with one IPv4 subnet, made by the client."""
    network = cloud.network.create_network(name="blue", mtu=1400)
    cloud.network.create_subnet(network_id=network.id, ip_version=4, cidr="192.0.2.0/24", name="four")
    return network


def ids(things):
    return sorted(thing.id for thing in things)


def test_networks_and_subnets_are_made_found_changed_and_deleted(cloud, api):
    network = cloud.network.create_network(name="blue", description="for a test", mtu=1400, is_admin_state_up=True)
    assert (network.name, network.mtu, network.status, network.is_admin_state_up) == ("blue", 1400, "ACTIVE", True)
    assert network.provider_network_type == "local"
    four = cloud.network.create_subnet(
        network_id=network.id,
        ip_version=4,
        cidr="192.0.2.0/24",
        gateway_ip="192.0.2.254",
        allocation_pools=[{"start": "192.0.2.10", "end": "192.0.2.20"}],
        dns_nameservers=["192.0.2.53"],
        host_routes=[{"destination": "198.51.100.0/24", "nexthop": "192.0.2.1"}],
    )
    six = cloud.network.create_subnet(network_id=network.id, ip_version=6, cidr="2001:db8::/64", gateway_ip=None)
    assert (four.gateway_ip, four.dns_nameservers) == ("192.0.2.254", ["192.0.2.53"])
    assert (six.ip_version, six.gateway_ip, six.is_dhcp_enabled) == (6, None, True)
    assert sorted(cloud.network.get_network(network.id).subnet_ids) == sorted([four.id, six.id])
    assert cloud.network.find_network("blue").id == network.id
    assert cloud.network.find_network(network.id).id == network.id
    assert cloud.network.find_network("red") is None
    assert ids(cloud.network.subnets(network_id=network.id)) == sorted([four.id, six.id])
    assert ids(cloud.network.subnets(ip_version=6)) == [six.id]
    assert cloud.network.update_network(network, name="azure", description="").name == "azure"
    assert cloud.network.update_subnet(four, name="four", dns_nameservers=[]).dns_nameservers == []
    cloud.network.delete_subnet(six)
    assert cloud.network.get_network(network.id).subnet_ids == [four.id]
    cloud.network.delete_network(network, ignore_missing=False)
    assert list(cloud.network.networks()) == [] and list(cloud.network.subnets()) == []


def test_ports_are_made_found_changed_and_deleted(cloud, blue):
    port = cloud.network.create_port(
        network_id=blue.id, name="mine", mac_address="fa:16:3e:00:00:07", fixed_ips=[{"ip_address": "192.0.2.77"}]
    )
    assert (port.status, port.device_id, port.binding_vif_type) == ("DOWN", "", "unbound")
    assert (port.mac_address, port.fixed_ips[0]["ip_address"]) == ("fa:16:3e:00:00:07", "192.0.2.77")
    assert port.is_port_security_enabled is True and port.security_group_ids == []
    other = cloud.network.create_port(network_id=blue.id)
    assert cloud.network.find_port("mine").id == port.id
    assert ids(cloud.network.ports(network_id=blue.id)) == ids([port, other])
    assert ids(cloud.network.ports(fixed_ips="ip_address=192.0.2.77")) == [port.id]
    assert ids(cloud.network.ports(mac_address="fa:16:3e:00:00:07", status="DOWN")) == [port.id]
    changed = cloud.network.update_port(port, name="yours", fixed_ips=[{"ip_address": "192.0.2.78"}])
    assert (changed.name, changed.fixed_ips[0]["ip_address"]) == ("yours", "192.0.2.78")
    cloud.network.delete_port(port, ignore_missing=False)
    assert ids(cloud.network.ports()) == [other.id]


def test_port_security_and_address_pairs(cloud, blue):
    assert {"allowed-address-pairs", "port-security"} <= {one.alias for one in cloud.network.extensions()}
    assert cloud.network.find_extension("port-security").name == "Port Security"
    assert blue.is_port_security_enabled is True
    port = cloud.network.create_port(
        network_id=blue.id, mac_address="fa:16:3e:00:00:07", allowed_address_pairs=[{"ip_address": "192.0.2.64/26"}]
    )
    assert port.allowed_address_pairs == [{"ip_address": "192.0.2.64/26", "mac_address": "fa:16:3e:00:00:07"}]
    with pytest.raises(exceptions.ConflictException, match="Port Security must be enabled"):
        cloud.network.update_port(port, is_port_security_enabled=False)
    port = cloud.network.update_port(port, is_port_security_enabled=False, allowed_address_pairs=[])
    assert port.is_port_security_enabled is False and port.allowed_address_pairs == []
    assert ids(cloud.network.ports(is_port_security_enabled=False)) == [port.id]
    network = cloud.network.update_network(blue, is_port_security_enabled=False)
    assert network.is_port_security_enabled is False
    assert cloud.network.create_port(network_id=blue.id).is_port_security_enabled is False


def test_security_groups_and_their_rules(cloud, blue):
    web = cloud.network.create_security_group(name="web", description="HTTP")
    assert (web.name, web.stateful, web.is_shared) == ("web", True, False)
    assert sorted((rule["direction"], rule["ethertype"]) for rule in web.security_group_rules) == [("egress", "IPv4"), ("egress", "IPv6")]
    rule = cloud.network.create_security_group_rule(
        security_group_id=web.id,
        direction="ingress",
        protocol="tcp",
        port_range_min=80,
        port_range_max=81,
        remote_ip_prefix="192.0.2.7/24",
    )
    assert (rule.protocol, rule.port_range_min, rule.normalized_cidr) == ("tcp", 80, "192.0.2.0/24")
    with pytest.raises(exceptions.ConflictException, match="already exists"):
        cloud.network.create_security_group_rule(
            security_group_id=web.id, direction="ingress", protocol=6, port_range_min=80, port_range_max=81, remote_ip_prefix="192.0.2.0/24"
        )
    with pytest.raises(exceptions.BadRequestException, match="port_range_min"):
        cloud.network.create_security_group_rule(
            security_group_id=web.id, direction="ingress", protocol="udp", port_range_min=81, port_range_max=80
        )
    rules = cloud.network.create_security_group_rules(
        [
            {"security_group_id": web.id, "direction": "ingress", "remote_group_id": web.id},
            {"security_group_id": web.id, "direction": "ingress", "ethertype": "IPv6", "protocol": "ipv6-icmp"},
        ]
    )
    assert len(list(rules)) == 2
    assert cloud.network.find_security_group("web").id == web.id
    assert ids(cloud.network.security_group_rules(security_group_id=web.id, protocol="tcp")) == [rule.id]
    assert len(list(cloud.network.security_group_rules(security_group_id=web.id, limit=2))) == 5
    assert ids(cloud.network.security_groups(name="web")) == [web.id]
    port = cloud.network.create_port(network_id=blue.id, security_group_ids=[web.id])
    assert port.security_group_ids == [web.id]
    with pytest.raises(exceptions.ConflictException, match="in use"):
        cloud.network.delete_security_group(web, ignore_missing=False)
    with pytest.raises(exceptions.NotFoundException):
        cloud.network.update_port(port, security_group_ids=[NOBODY])
    assert cloud.network.update_port(port, security_group_ids=[]).security_group_ids == []
    assert cloud.network.update_security_group(web, name="front").name == "front"
    cloud.network.delete_security_group_rule(rule, ignore_missing=False)
    assert len(cloud.network.get_security_group(web).security_group_rules) == 4
    cloud.network.delete_security_group(web, ignore_missing=False)
    with pytest.raises(exceptions.NotFoundException):
        cloud.network.get_security_group(web.id)


def test_trunks_are_made_found_changed_and_deleted(cloud, api, blue):
    red = cloud.network.create_network(name="red", mtu=1400)
    parent, sub = (cloud.network.create_port(network_id=network.id) for network in (blue, red))
    trunk = cloud.network.create_trunk(port_id=parent.id, name="router")
    assert (trunk.name, trunk.port_id, trunk.status, trunk.sub_ports) == ("router", parent.id, "DOWN", [])
    assert trunk.is_admin_state_up is True
    tagged = {"port_id": sub.id, "segmentation_type": "vlan", "segmentation_id": 101}
    assert cloud.network.add_trunk_subports(trunk, [tagged]).sub_ports == [tagged]
    assert cloud.network.get_trunk_subports(trunk)["sub_ports"] == [tagged]
    assert cloud.network.find_trunk("router").id == trunk.id
    assert ids(cloud.network.trunks(port_id=parent.id)) == [trunk.id] and ids(cloud.network.trunks(name="other")) == []
    carried = cloud.network.get_port(parent.id).trunk_details
    assert carried == {"trunk_id": trunk.id, "sub_ports": [{**tagged, "mac_address": sub.mac_address}]}
    shown = cloud.network.get_port(sub.id)
    assert (shown.device_owner, shown.device_id) == ("trunk:subport", trunk.id)
    for port, why in ((parent, "currently a parent port"), (sub, "currently a subport")):
        with pytest.raises(exceptions.ConflictException, match=why):
            cloud.network.delete_port(port)
    with pytest.raises(exceptions.ConflictException, match="already in use on trunk"):
        other = cloud.network.create_port(network_id=red.id)
        cloud.network.add_trunk_subports(trunk, [{**tagged, "port_id": other.id}])
    assert cloud.network.update_trunk(trunk, name="r", is_admin_state_up=False).name == "r"
    with pytest.raises(exceptions.ConflictException, match="disabled"):
        cloud.network.delete_trunk_subports(trunk, [tagged])
    cloud.network.update_trunk(trunk, is_admin_state_up=True)
    assert cloud.network.delete_trunk_subports(trunk, [{"port_id": sub.id}]).sub_ports == []
    cloud.network.delete_trunk(trunk, ignore_missing=False)
    assert list(cloud.network.trunks()) == []
    cloud.network.delete_port(parent, ignore_missing=False)


def test_bulk_creates_answer_with_all_of_them(cloud, blue):
    made = list(cloud.network.create_ports([{"network_id": blue.id, "name": f"p{n}"} for n in range(3)]))
    assert sorted(port.name for port in made) == ["p0", "p1", "p2"]
    assert ids(made) == ids(cloud.network.ports())


def test_pages_are_followed_to_the_end(cloud, blue):
    made = [cloud.network.create_port(network_id=blue.id, name=f"p{n}").id for n in range(7)]
    assert ids(cloud.network.ports(limit=2)) == sorted(made)
    assert ids(cloud.network.ports(limit=7)) == sorted(made)
    named = [port.name for port in cloud.network.ports(limit=3, sort_key="name", sort_dir="desc")]
    assert named == [f"p{n}" for n in reversed(range(7))]


@pytest.mark.parametrize("form", ["nothing", "network", "address", "port", "tag"])
def test_every_form_of_an_attach_gives_an_active_interface(cloud, blue, guest, form):
    forms = {
        "nothing": {},
        "network": {"net_id": blue.id},
        "address": {"net_id": blue.id, "fixed_ips": [{"ip_address": "192.0.2.77"}]},
        "tag": {"net_id": blue.id, "tag": "nic-1"},
    }
    if form == "port":
        forms["port"] = {"port_id": cloud.network.create_port(network_id=blue.id).id}
    made = cloud.compute.create_server_interface(guest, **forms[form])
    assert (made.net_id, made.port_state) == (blue.id, "ACTIVE")
    if form == "address":
        assert made.fixed_ips[0]["ip_address"] == "192.0.2.77"
    if form == "port":
        assert made.port_id == forms["port"]["port_id"]
    shown = cloud.compute.get_server_interface(made.port_id, server=guest)
    for attribute in ("net_id", "port_id", "mac_addr", "fixed_ips", "port_state"):
        assert getattr(shown, attribute) == getattr(made, attribute)
    assert shown.tag == ("nic-1" if form == "tag" else None)
    port = cloud.network.get_port(made.port_id)
    assert (port.device_id, port.status, port.mac_address) == (guest, "ACTIVE", made.mac_addr)
    assert (port.binding_vif_type, port.device_owner[:8]) == ("veth", "compute:")


def test_interfaces_are_listed_and_one_in_the_middle_detached(cloud, blue, guest, api):
    made = [cloud.compute.create_server_interface(guest, net_id=blue.id).port_id for _ in range(3)]
    assert sorted(nic.port_id for nic in cloud.compute.server_interfaces(guest)) == sorted(made)
    cloud.compute.delete_server_interface(made[1], server=guest, ignore_missing=False)
    api.gone(made[1])
    assert sorted(nic.port_id for nic in cloud.compute.server_interfaces(guest)) == sorted([made[0], made[2]])
    with pytest.raises(exceptions.NotFoundException):
        cloud.compute.get_server_interface(made[1], server=guest)
    with pytest.raises(exceptions.NotFoundException):
        cloud.network.get_port(made[1])


def test_a_port_of_the_client_outlives_its_detach_and_goes_elsewhere(cloud, blue, guest, vm, api):
    port = cloud.network.create_port(network_id=blue.id)
    for server, state in ((guest, "ACTIVE"), (vm, "DOWN"), (guest, "ACTIVE")):
        assert cloud.compute.create_server_interface(server, port_id=port.id).port_state == state
        with pytest.raises(exceptions.ConflictException):
            cloud.compute.create_server_interface(guest, port_id=port.id)
        cloud.compute.delete_server_interface(port.id, server=server, ignore_missing=False)
        api.gone(port.id)
        after = cloud.network.get_port(port.id)
        assert (after.device_id, after.device_owner) == ("", "")
    cloud.network.delete_port(port)


def test_servers_are_found_before_they_are_used(cloud, guest, vm, api):
    assert cloud.compute.get_server(vm).status == "ACTIVE"
    assert cloud.compute.find_server(vm).id == vm
    assert sorted(server.id for server in cloud.compute.servers(details=False)) == sorted([guest, vm])
    named = api.server({"kind": "vm"}, name="by name")
    assert cloud.compute.find_server("by name", details=False).id == named


def test_a_server_object_serves_as_well_as_its_id(cloud, blue, vm):
    server = cloud.compute.get_server(vm)
    made = cloud.compute.create_server_interface(server, net_id=blue.id)
    assert [nic.port_id for nic in cloud.compute.server_interfaces(server)] == [made.port_id]
    cloud.compute.delete_server_interface(made, server=server, ignore_missing=False)


def test_an_older_microversion_shows_no_tag(blue, vm):
    old = connection(compute_default_microversion="2.1")
    made = old.compute.create_server_interface(vm, net_id=blue.id)
    answer = old.compute.get(f"/servers/{vm}/os-interface/{made.port_id}", microversion="2.69")
    assert "tag" not in answer.json()["interfaceAttachment"]
    assert answer.headers["OpenStack-API-Version"] == "compute 2.69"
    answer = old.compute.get(f"/servers/{vm}/os-interface/{made.port_id}", microversion="2.70")
    assert answer.json()["interfaceAttachment"]["tag"] is None
    assert answer.headers["X-OpenStack-Nova-API-Version"] == "2.70"
    assert "openstack-api-version" in answer.headers["Vary"].lower()


def test_discovery_tells_the_range_of_microversions(cloud):
    found = cloud.compute.get_endpoint_data()
    assert (found.min_microversion, found.max_microversion) == ((2, 1), (2, 70))
    assert cloud.compute.get("/servers", microversion="2.71", raise_exc=False).status_code == 406


REFUSED = [
    ("an unknown server", exceptions.NotFoundException, 404, "Instance"),
    ("an unknown network", exceptions.NotFoundException, 404, "Network"),
    ("an unknown port", exceptions.NotFoundException, 404, "Port id"),
    ("both ids", exceptions.BadRequestException, 400, "Must not input both"),
    ("an address alone", exceptions.BadRequestException, 400, "Must input network_id"),
    ("an address twice", exceptions.ConflictException, 409, "already in use"),
    ("no address", exceptions.BadRequestException, 400, "Invalid input for field/attribute"),
]


@pytest.mark.parametrize("what, kind, status, words", REFUSED, ids=[row[0] for row in REFUSED])
def test_refused_attaches_raise_the_exception_of_their_kind(cloud, blue, vm, what, kind, status, words):
    port = cloud.network.create_port(network_id=blue.id, fixed_ips=[{"ip_address": "192.0.2.9"}])
    server, how = {
        "an unknown server": (NOBODY, {"net_id": blue.id}),
        "an unknown network": (vm, {"net_id": NOBODY}),
        "an unknown port": (vm, {"port_id": NOBODY}),
        "both ids": (vm, {"net_id": blue.id, "port_id": port.id}),
        "an address alone": (vm, {"fixed_ips": [{"ip_address": "192.0.2.9"}]}),
        "an address twice": (vm, {"net_id": blue.id, "fixed_ips": [{"ip_address": "192.0.2.9"}]}),
        "no address": (vm, {"net_id": blue.id, "fixed_ips": [{"ip_address": "192.0.2"}]}),
    }[what]
    with pytest.raises(kind) as raised:
        cloud.compute.create_server_interface(server, **how)
    assert raised.value.status_code == status
    assert words in raised.value.details, raised.value.details
    assert raised.value.request_id.startswith("req-")


def test_neutrons_refusals_raise_the_exception_of_their_kind(cloud, blue):
    with pytest.raises(exceptions.NotFoundException):
        cloud.network.get_network(NOBODY)
    with pytest.raises(exceptions.NotFoundException):
        cloud.network.get_port("no-such-port")
    with pytest.raises(exceptions.BadRequestException) as raised:
        cloud.network.create_subnet(network_id=blue.id, ip_version=4, cidr="192.0.2.128/25")
    assert "overlaps" in raised.value.details
    cloud.network.create_port(network_id=blue.id, mac_address="fa:16:3e:00:00:07")
    with pytest.raises(exceptions.ConflictException) as raised:
        cloud.network.create_port(network_id=blue.id, mac_address="fa:16:3e:00:00:07")
    assert "fa:16:3e:00:00:07" in raised.value.details
    with pytest.raises(exceptions.ConflictException):
        cloud.network.delete_network(blue, ignore_missing=False)
    cloud.network.delete_port(str(uuid.uuid4()), ignore_missing=True)


def test_what_is_discovered_and_paged_leads_back_through_a_proxy(api):
    with unix.Proxy(SOCKET) as proxy:
        auth = keystone.Session(auth=noauth.NoAuth(endpoint=proxy.base))
        cloud = openstack.connection.Connection(
            session=auth, compute_endpoint_override=proxy.base + "/v2.1", network_endpoint_override=proxy.base + "/v2.0"
        )
        found = cloud.compute.get_endpoint_data()
        assert (found.url, found.max_microversion) == (proxy.base + "/v2.1/", (2, 70))
        network = api.network("192.0.2.0/24")
        made = [api.call("POST", "/v2.0/ports", {"port": {"network_id": network}}, 201).json()["port"]["id"] for _ in range(3)]
        assert ids(cloud.network.ports(limit=1)) == sorted(made)
        vms = [api.server({"kind": "vm"}) for _ in range(3)]
        assert ids(cloud.compute.servers(limit=1)) == sorted(vms)
        [flavor] = cloud.compute.flavors()
        assert flavor.id == cloud.compute.get_flavor("nicd").id == cloud.compute.find_flavor("nicd").id == "nicd"
        server = cloud.compute.get_server(vms[0])
        assert server.flavor.original_name == "nicd"
        proxy.shutdown()


def test_an_unbound_port_is_free_again(cloud, blue, guest, api):
    port = cloud.network.create_port(network_id=blue.id)
    cloud.compute.create_server_interface(guest, port_id=port.id)
    cloud.network.update_port(port.id, device_id="", device_owner="", binding_host_id=None)
    api.gone(port.id)
    after = cloud.network.get_port(port.id)
    assert (after.device_id, after.device_owner, after.binding_vif_type) == ("", "", "unbound")
    with pytest.raises(exceptions.ConflictException):
        cloud.network.update_port(port.id, device_id=guest)
