"""python-neutronclient makes the calls of its users: Nova's `validate_networks`, the reads of its `allocate_for_instance`, and what
kuryr-libnetwork asks before it starts (`nova/network/neutron.py`, `kuryr_libnetwork/controllers.py`)."""

import uuid
import warnings

import keystoneauth1.noauth
import keystoneauth1.session
import pytest

import unix
from conftest import SOCKET

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from neutronclient.common import exceptions
    from neutronclient.v2_0.client import Client


@pytest.fixture(scope="module")
def neutron():
    session = keystoneauth1.session.Session(auth=keystoneauth1.noauth.NoAuth(), session=unix.session(SOCKET))
    return Client(session=session, endpoint_override="http://localhost")


# Nova: validate_networks ------------------------------------------------------------------------------------------------


def test_nova_finds_the_networks_that_are_asked_for(neutron, network, api):
    other = api.network("198.51.100.0/24")
    found = neutron.list_networks(id=[network, other])["networks"]
    assert sorted(one["id"] for one in found) == sorted([network, other])
    # A network without a subnet is refused by Nova itself.
    assert all(one["subnets"] for one in found)
    assert neutron.list_networks(id=[str(uuid.uuid4())])["networks"] == []


def test_nova_finds_a_projects_networks_and_shared_ones(neutron, api):
    own = api.network("192.0.2.0/24", project_id="demo")
    api.network("198.51.100.0/24", project_id="other")
    assert [one["id"] for one in neutron.list_networks(tenant_id="demo", shared=False)["networks"]] == [own]
    assert neutron.list_networks(shared=True)["networks"] == []
    assert neutron.list_networks(tenant_id="demo", shared=False, admin_state_up=True)["networks"][0]["id"] == own


def test_nova_asks_whether_an_address_is_taken(neutron, network):
    asked = {"network_id": network, "fixed_ips": "ip_address=192.0.2.77", "fields": "device_id"}
    assert neutron.list_ports(**asked)["ports"] == []
    neutron.create_port({"port": {"network_id": network, "fixed_ips": [{"ip_address": "192.0.2.77"}]}})
    assert neutron.list_ports(**asked)["ports"] == [{"device_id": ""}]


def test_nova_asks_how_many_ports_a_project_may_have(neutron):
    assert neutron.show_quota("demo")["quota"]["port"] == -1


def test_nova_looks_a_port_up_that_is_asked_for(neutron, network):
    port = neutron.create_port({"port": {"network_id": network}})["port"]
    shown = neutron.show_port(port["id"])["port"]
    # What `_validate_requested_port_ids` and `_ports_needed_per_instance` look at.
    assert (shown["device_id"], shown["network_id"], shown["binding:vif_type"]) == ("", network, "unbound")
    assert shown["fixed_ips"] and not shown.get("deferred_ip") and "resource_request" not in shown
    fields = ["binding:vnic_type", "binding:profile", "network_id", "resource_request", "numa_affinity_policy"]
    shown = neutron.show_port(port["id"], fields=fields)["port"]
    assert sorted(shown) == ["binding:profile", "binding:vnic_type", "network_id"]
    with pytest.raises(exceptions.PortNotFoundClient):
        neutron.show_port(str(uuid.uuid4()))


# Nova: what it asks around allocate_for_instance -------------------------------------------------------------------------


def test_nova_finds_no_extension_whose_calls_are_not_there(neutron):
    aliases = {one["alias"] for one in neutron.list_extensions()["extensions"]}
    # With these Nova would ask for names, segments and resources that nicd does not have.
    assert not aliases & {
        "dns-integration", "multi-provider", "segment", "port-resource-request-groups", "vnic-index",
        "fip-port-details", "security-groups-shared-filtering", "ip-substring-filtering",
    }  # fmt: skip
    assert {"binding", "port-security", "quotas", "provider"} <= aliases


def test_nova_reads_how_a_network_is_realised(neutron, network):
    shown = neutron.show_network(network, fields=["provider:physical_network", "provider:network_type"])["network"]
    assert shown == {"provider:physical_network": None, "provider:network_type": "local"}


def test_nova_builds_its_network_info_of_an_attached_port(neutron, network, vm, api):
    path = f"/v2.1/servers/{vm}/os-interface"
    port = api.call("POST", path, {"interfaceAttachment": {"net_id": network}}, 200).json()["interfaceAttachment"]["port_id"]
    [shown] = neutron.list_ports(device_id=vm)["ports"]
    assert (shown["id"], shown["binding:vif_type"], shown["device_owner"]) == (port, "tap", "compute:nova")
    assert shown["binding:vif_details"]["device"] and shown["mac_address"] and shown["status"] in ("DOWN", "BUILD", "ACTIVE")
    subnets = neutron.list_subnets(id=[ip["subnet_id"] for ip in shown["fixed_ips"]])["subnets"]
    for subnet in subnets:
        assert {"cidr", "gateway_ip", "ip_version", "dns_nameservers", "host_routes", "enable_dhcp"} <= set(subnet)
        # The address of a DHCP agent's port: there are no such ports.
        assert neutron.list_ports(network_id=network, device_owner="network:dhcp")["ports"] == []
    assert neutron.list_networks(**{"router:external": True})["networks"] == []
    neutron.delete_port(port)
    api.gone(port)


@pytest.mark.parametrize("how", ["POST", "PUT"])
def test_a_device_is_given_a_port_by_an_attach_alone(how, neutron, network, vm):
    """Nova and kuryr-libnetwork set `device_id`; nicd's attach is what gives a port to a server."""
    with pytest.raises(exceptions.Conflict, match="is set by an attach"):
        if how == "POST":
            neutron.create_port({"port": {"device_id": vm, "network_id": network, "admin_state_up": True, "tenant_id": "demo"}})
        else:
            port = neutron.create_port({"port": {"network_id": network}})["port"]["id"]
            neutron.update_port(port, {"port": {"device_id": vm, "device_owner": "compute:nova"}})


# kuryr-libnetwork ---------------------------------------------------------------------------------------------------------


def test_kuryr_finds_its_mandatory_extension_and_does_without_tags(neutron):
    assert neutron.show_extension("subnet_allocation")["extension"]["alias"] == "subnet_allocation"
    for tags in ("standard-attr-tag", "tag", "tag-ext"):
        with pytest.raises(exceptions.NotFound) as refusal:
            neutron.show_extension(tags)
        assert refusal.value.status_code == 404


def test_kuryr_looks_for_its_default_pools(neutron):
    for name in ("kuryr", "kuryr6"):
        assert neutron.list_subnetpools(name=name) == {"subnetpools": []}
    with pytest.raises(exceptions.NotFound):
        neutron.show_subnetpool(str(uuid.uuid4()))


def test_kuryr_finds_what_it_made_by_name_and_range(neutron, api):
    network = neutron.create_network({"network": {"name": "kuryr-net-1", "admin_state_up": True}})["network"]["id"]
    subnet = {"name": "kuryr-subnet-1", "network_id": network, "ip_version": 4, "cidr": "192.0.2.0/24", "enable_dhcp": True}
    [made] = neutron.create_subnet({"subnets": [subnet]})["subnets"]
    assert [one["id"] for one in neutron.list_networks(name="kuryr-net-1")["networks"]] == [network]
    assert neutron.list_subnets(network_id=network, cidr="192.0.2.0/24")["subnets"] == [made]
    port = neutron.create_port({"port": {"name": "1-port", "network_id": network, "fixed_ips": [{"subnet_id": made["id"]}]}})["port"]
    address = port["fixed_ips"][0]["ip_address"]
    assert neutron.list_ports(name="1-port")["ports"][0]["id"] == port["id"]
    both = [f"subnet_id={made['id']}", f"ip_address={address}"]
    assert [one["id"] for one in neutron.list_ports(fixed_ips=both)["ports"]] == [port["id"]]
