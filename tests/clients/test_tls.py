"""openstacksdk from another host, as it is: over TLS with a client certificate, configured as a cloud is."""

import os

import keystoneauth1.exceptions
import openstack
import pytest

HOST = os.environ["NICD_TEST_HOST"]
PKI = os.environ["NICD_TEST_PKI"]


def connect(**more):
    return openstack.connect(
        load_yaml_config=False,
        load_envvars=False,
        auth_type="none",
        auth={"endpoint": HOST},
        compute_endpoint_override=HOST + "/v2.1",
        network_endpoint_override=HOST + "/v2.0",
        cacert=PKI + "/ca.pem",
        **more,
    )


def test_a_nic_is_attached_and_detached(api, guest):
    cloud = connect(cert=PKI + "/cloud-1.pem", key=PKI + "/cloud-1.key")
    network = cloud.network.create_network(name="blue")
    cloud.network.create_subnet(network_id=network.id, ip_version=4, cidr="192.0.2.0/24")
    nic = cloud.compute.create_server_interface(guest, net_id=network.id)
    assert [found.port_id for found in cloud.compute.server_interfaces(guest)] == [nic.port_id]
    assert cloud.network.get_port(nic.port_id).fixed_ips[0]["ip_address"].startswith("192.0.2.")
    with pytest.raises(openstack.exceptions.ConflictException):
        cloud.network.delete_network(network.id)
    cloud.compute.delete_server_interface(nic.port_id, server=guest)
    api.gone(nic.port_id)


def test_nothing_is_answered_without_a_certificate(api):
    # It asks for the versions first, and gets no answer.
    with pytest.raises(keystoneauth1.exceptions.DiscoveryFailure):
        list(connect().network.networks())
