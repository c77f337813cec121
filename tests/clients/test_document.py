"""openapi.json as others read it: a validator of OpenAPI 3.1, and a generator whose client is then used on the daemon."""

import importlib
import os
import subprocess
import sys

import httpx
import openapi_spec_validator
import pytest

from conftest import SOCKET

BIN = os.path.dirname(sys.executable)


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    """A package made of the document by openapi-python-client; anything it would leave out is an error."""
    place = tmp_path_factory.mktemp("generated")
    with httpx.Client(transport=httpx.HTTPTransport(uds=SOCKET)) as http:
        (place / "openapi.json").write_bytes(http.get("http://localhost/openapi.json").content)
    command = [f"{BIN}/openapi-python-client", "generate", "--path", "openapi.json", "--output-path", "made", "--meta", "none"]
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}
    done = subprocess.run(
        [*command, "--fail-on-warning"], cwd=place, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    sys.path.insert(0, str(place))
    yield lambda name: importlib.import_module(f"made.{name}")
    sys.path.remove(str(place))


def test_the_document_is_valid(api):
    document = api.get("/openapi.json")
    openapi_spec_validator.validate(document)
    assert document["openapi"].startswith("3.1.") and document["security"] == []


def test_a_generated_client_has_every_thing_and_every_route(client, api):
    models = client("models")
    for name in ("Network", "Subnet", "Port", "Server", "Flavor", "InterfaceAttachment", "VirtualInterface", "RackspaceNetwork"):
        assert hasattr(models, name), name
    for operation in ("networks.create_networks", "subnets.create_subnets", "ports.create_ports", "ports.update_port"):
        assert client(f"api.{operation}").sync, operation


def same(thing):
    """Without the times, which the client writes in another form."""
    return {key: value for key, value in thing.items() if key not in ("created_at", "updated_at")}


def test_what_the_generated_client_reads_is_what_the_daemon_says(client, api, network, guest):
    made = api.call("POST", f"/v2.1/servers/{guest}/os-interface", {"interfaceAttachment": {"net_id": network}}, 200).json()
    port_id = made["interfaceAttachment"]["port_id"]
    http = client("client").Client(base_url="http://localhost", httpx_args={"transport": httpx.HTTPTransport(uds=SOCKET)})
    for kind, one, many in (("networks", "network", "networks"), ("subnets", "subnet", "subnets"), ("ports", "port", "ports")):
        listed = client(f"api.{kind}.list_{many}").sync(client=http)
        said = api.get(f"/v2.0/{many}")[many]
        assert [same(thing.to_dict()) for thing in getattr(listed, many)] == [same(thing) for thing in said]
        shown = client(f"api.{kind}.show_{one}").sync(said[0]["id"], client=http)
        assert same(shown.to_dict()[one]) == same(said[0])
    models = client("models")
    body = models.UpdatePortBody(port=models.PortChange(name="front", device_id=""))
    changed = client("api.ports.update_port").sync(port_id, client=http, body=body)
    assert changed.port.name == "front"
    api.gone(port_id)
    assert client("api.ports.show_port").sync(port_id, client=http).port.device_id == ""


def test_the_generated_client_makes_attaches_and_detaches(client, api, guest):
    http = client("client").Client(base_url="http://localhost", httpx_args={"transport": httpx.HTTPTransport(uds=SOCKET)})
    models = client("models")
    call = lambda operation, *where, **what: client(f"api.{operation}").sync_detailed(*where, client=http, **what)
    new = models.CreateNetworksBodyType0(network=models.NewNetwork(name="green", mtu=1400))
    network = call("networks.create_networks", body=new).parsed.network
    assert (network.name, network.mtu) == ("green", 1400)
    new = models.CreateSubnetsBodyType0(subnet=models.NewSubnet(network_id=network.id, cidr="192.0.2.0/24"))
    assert call("subnets.create_subnets", body=new).parsed.subnet.gateway_ip == "192.0.2.1"
    asked = models.AttachInterface(interface_attachment=models.NewInterfaceAttachment(net_id=network.id))
    nic = call("compute.attach_interface_v21", guest, body=asked).parsed.interface_attachment
    assert [nic.port_state, nic.fixed_ips[0].ip_address] == ["ACTIVE", "192.0.2.2"]
    assert call("ports.show_port", nic.port_id).parsed.port.mac_address == nic.mac_addr
    assert call("compute.detach_interface_v21", guest, nic.port_id).status_code == 202
    api.gone(str(nic.port_id))
    assert call("ports.show_port", nic.port_id).parsed.neutron_error.reason == "no_such_port"
