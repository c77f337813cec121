"""Every example of the two documents nicd began with, sent by curl as it is written there; the answers are equal as JSON.

The documents are OTC's "Adding an NIC to an ECS" and Rackspace's "Create Virtual Interface And Attach To Server". As a
network, a subnet and a port can be made with an id, most answers are equal to the last digit. Two slips of the documents
are none of ours: a blank before the port's id, and headers run together on one line.
"""

import json
import re

import pytest

from curl import curl

OTC_BY_ADDRESS = """
{
    "interfaceAttachment" : {
        "fixed_ips" : [
            {
                "ip_address" : "192.168.1.3"
            }
         ],
    "net_id" : "3cb9bc59-5699-4588-a4b1-b87f96708bc6"
    }
}
"""

OTC_BY_PORT = """
{
    "interfaceAttachment" : {
    "port_id" : "ce531f90-199f-48c0-816c-13e38010b442"
    }
}
"""

OTC_ANSWER = """
{
    "interfaceAttachment": {
        "port_state": "DOWN",
        "fixed_ips": [
            {
                "subnet_id": "d9cfef77-0151-4c2a-9ed5-d951ada8adf3",
                "ip_address": "10.0.1.11"
            }
        ],
        "port_id": " ce531f90-199f-48c0-816c-13e38010b442",
        "net_id": "0dc714fa-9022-4a03-bb22-9821a396bb9d",
        "mac_addr": "fa:16:3e:63:75:b2"
    }
}
"""

RACKSPACE_HEADERS = [
    "--header", "X-Auth-Token: f064c46a782c444cb4ba4b6434288f7c",
    "--header", "Content-Type: application/json",
    "--header", "Accept: application/json",
]  # fmt: skip

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
PROJECT = "/v2/0123456789abcdef0123456789abcdef"


def otc_answer():
    """The document's answer, without its blank."""
    answer = json.loads(OTC_ANSWER)
    attachment = answer["interfaceAttachment"]
    attachment["port_id"] = attachment["port_id"].strip()
    return answer


@pytest.fixture
def otc(api):
    """What OTC's document presupposes: its two networks, its subnet, its port."""
    make = lambda what, body: api.call("POST", f"/v2.0/{what}s", {what: body}, 201)
    answer = otc_answer()["interfaceAttachment"]
    make("network", {"id": "3cb9bc59-5699-4588-a4b1-b87f96708bc6", "name": "one"})
    make("subnet", {"network_id": "3cb9bc59-5699-4588-a4b1-b87f96708bc6", "cidr": "192.168.1.0/24"})
    make("network", {"id": answer["net_id"], "name": "other"})
    make("subnet", {"id": answer["fixed_ips"][0]["subnet_id"], "network_id": answer["net_id"], "cidr": "10.0.1.0/24"})
    port = {"id": answer["port_id"], "network_id": answer["net_id"], "mac_address": answer["mac_addr"]}
    make("port", {**port, "fixed_ips": [{"ip_address": "10.0.1.11"}]})


@pytest.mark.parametrize("version", ["v2", "v2.1"])
def test_otc_adds_a_nic_by_port_and_answers_what_the_document_says(otc, vm, version):
    path = f"/{version}/0123456789abcdef0123456789abcdef/servers/{vm}/os-interface"
    answer = curl(path, "--header", "Content-Type: application/json", "--data-binary", "@-", body=OTC_BY_PORT)
    assert answer.expect(200) == otc_answer()
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize("version", ["v2", "v2.1"])
def test_otc_adds_a_nic_by_network_and_address_and_answers_in_the_same_shape(otc, vm, version):
    path = f"/{version}/0123456789abcdef0123456789abcdef/servers/{vm}/os-interface"
    answer = curl(path, "--header", "Content-Type: application/json", "--data-binary", "@-", body=OTC_BY_ADDRESS)
    made = answer.expect(200)["interfaceAttachment"]
    expected = otc_answer()["interfaceAttachment"]
    assert made.keys() == expected.keys()
    assert [ip.keys() for ip in made["fixed_ips"]] == [ip.keys() for ip in expected["fixed_ips"]]
    assert made["port_state"] == expected["port_state"]
    assert made["net_id"] == "3cb9bc59-5699-4588-a4b1-b87f96708bc6"
    assert made["fixed_ips"][0]["ip_address"] == "192.168.1.3"
    assert re.fullmatch("fa:16:3e(:[0-9a-f]{2}){3}", made["mac_addr"])
    assert UUID.fullmatch(made["port_id"]) and UUID.fullmatch(made["fixed_ips"][0]["subnet_id"])


def test_otcs_answer_can_be_shown_listed_and_detached(otc, vm):
    path = f"/v2.1/0123456789abcdef/servers/{vm}/os-interface"
    port = otc_answer()["interfaceAttachment"]["port_id"]
    curl(path, "--header", "Content-Type: application/json", "--data-binary", "@-", body=OTC_BY_PORT).expect(200)
    assert curl(f"{path}/{port}").expect(200) == otc_answer()
    assert curl(path).expect(200) == {"interfaceAttachments": [otc_answer()["interfaceAttachment"]]}
    assert curl(f"{path}/{port}?reserve_port=True", "--request", "DELETE").expect(202) is None


@pytest.mark.parametrize("prefix", ["", PROJECT])
def test_rackspace_creates_an_interface_with_the_fields_and_headers_of_the_document(api, vm, prefix):
    network = api.network("192.168.0.0/24")
    body = json.dumps({"virtual_interface": {"network_id": network}})
    path = f"{prefix}/servers/{vm}/os-virtual-interfacesv2"
    answer = curl(path, *RACKSPACE_HEADERS, "--data-binary", "@-", body=body)
    [made] = answer.expect(200).pop("virtual_interfaces")
    assert answer.body == {}
    assert made.keys() == {"id", "ip_addresses", "mac_address"}
    assert UUID.fullmatch(made["id"])
    assert re.fullmatch("FA:16:3E(:[0-9A-F]{2}){3}", made["mac_address"])
    assert made["ip_addresses"] == [{"address": "192.168.0.2", "network_id": network, "network_label": "blue"}]
    assert answer.headers["content-type"] == "application/json"
    assert int(answer.headers["content-length"]) > 0
    assert re.fullmatch("req-" + UUID.pattern, answer.headers["x-compute-request-id"])
    assert answer.headers["date"].endswith("GMT")


def test_rackspace_lists_what_its_guide_lists_and_deletes_with_200_and_nothing(api, vm):
    nets = {"00000000-0000-0000-0000-000000000000": "public", "11111111-1111-1111-1111-111111111111": "private"}
    for network, label in nets.items():
        api.call("POST", "/v2.0/networks", {"network": {"id": network, "name": label}}, 201)
    public, private = nets
    for network, cidr in ((public, "2001:4800:7810:512::/64"), (public, "64.49.226.0/24"), (private, "10.176.0.0/18")):
        api.call("POST", "/v2.0/subnets", {"subnet": {"network_id": network, "cidr": cidr}}, 201)
    path = f"/v2/658405/servers/{vm}/os-virtual-interfacesv2"
    for network in nets:
        body = json.dumps({"virtual_interface": {"network_id": network}})
        curl(path, *RACKSPACE_HEADERS, "--data-binary", "@-", body=body).expect(200)
    listed = {nic["ip_addresses"][0]["network_label"]: nic for nic in curl(path).expect(200)["virtual_interfaces"]}
    addresses = sorted(ip["address"] for ip in listed["public"]["ip_addresses"])
    assert addresses == ["2001:4800:7810:0512:0000:0000:0000:0002", "64.49.226.2"]
    assert {ip["network_id"] for ip in listed["public"]["ip_addresses"]} == {public}
    assert [ip["address"] for ip in listed["private"]["ip_addresses"]] == ["10.176.0.2"]
    for nic in listed.values():
        gone = curl(f"{path}/{nic['id']}", "--request", "DELETE", *RACKSPACE_HEADERS)
        assert (gone.expect(200), gone.headers["content-length"]) == (None, "0")


def test_rackspaces_second_interface_on_a_network_is_a_conflicting_request(api, vm, network):
    path = f"/servers/{vm}/os-virtual-interfacesv2"
    body = json.dumps({"virtual_interface": {"network_id": network}})
    curl(path, *RACKSPACE_HEADERS, "--data-binary", "@-", body=body).expect(200)
    refused = curl(path, *RACKSPACE_HEADERS, "--data-binary", "@-", body=body).expect(409)["conflictingRequest"]
    assert (refused["code"], refused["reason"]) == (409, "already_on_network")
