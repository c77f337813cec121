"""openstacksdk, as it is, against one host of a fleet over TLS: the server is on another host, and so is all that is made for it."""

import os

import openstack
import pytest

from test_tls import connect

SERVER = os.environ.get("NICD_TEST_SERVER")


def test_a_nic_of_a_server_of_another_host_is_attached_listed_and_detached():
    pki = os.environ["NICD_TEST_PKI"]
    cloud = connect(cert=pki + "/cloud-1.pem", key=pki + "/cloud-1.key")
    network = cloud.network.create_network(name="blue", provider_network_type="vxlan")
    cloud.network.create_subnet(network_id=network.id, ip_version=4, cidr="192.0.2.0/24")
    nic = cloud.compute.create_server_interface(SERVER, net_id=network.id)
    assert [found.port_id for found in cloud.compute.server_interfaces(SERVER)] == [nic.port_id]
    port = cloud.network.get_port(nic.port_id)
    assert (port.device_id, port.binding_host_id) == (SERVER, "back")
    assert port.fixed_ips[0]["ip_address"].startswith("192.0.2.")
    assert [found.id for found in cloud.network.ports(network_id=network.id)] == [nic.port_id]
    with pytest.raises(openstack.exceptions.ConflictException):
        cloud.network.delete_network(network.id)
    cloud.compute.delete_server_interface(nic.port_id, server=SERVER)
    cloud.network.wait_for_delete(port, interval=0.1, wait=20)
    assert list(cloud.compute.server_interfaces(SERVER)) == []
    own = cloud.network.create_port(network_id=network.id, name="own")
    cloud.network.delete_port(own.id)
