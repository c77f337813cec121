"""What other clients of these APIs send that the ones above do not: curl, Go, Ruby and Java programs, proxies, scripts.

Each is told from its requests alone: headers, spellings, framing, paging.
"""

import json
import uuid

import pytest

from conftest import BASE, SOCKET
from curl import curl
from unix import Raw

JSON = ["--header", "Content-Type: application/json"]
TOKEN = ["--header", "X-Auth-Token: gAAAAAB"]


def attach(server, how, *arguments):
    path = f"/v2.1/servers/{server}/os-interface"
    return curl(path, *JSON, *arguments, "--data-binary", "@-", body=json.dumps({"interfaceAttachment": how}))


# Headers ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "application/json; charset=utf-8", "application/json;charset=UTF-8", "Application/JSON"],
)
def test_json_is_json_however_it_is_announced(content_type, network, vm):
    body = json.dumps({"interfaceAttachment": {"net_id": network}})
    path = f"/v2.1/servers/{vm}/os-interface"
    curl(path, "--header", f"Content-Type: {content_type}", "--data-binary", "@-", body=body).expect(200)


@pytest.mark.parametrize("content_type", ["text/plain", "application/xml", "application/x-www-form-urlencoded"])
def test_other_bodies_are_a_bad_media_type(content_type, network, vm):
    path = f"/v2.1/servers/{vm}/os-interface"
    answer = curl(path, "--header", f"Content-Type: {content_type}", "--data-binary", "@-", body="{}")
    assert answer.expect(415)["badMediaType"]["reason"] == "unsupported_media_type"


@pytest.mark.parametrize(
    "accept", ["*/*", "application/json", "application/json, */*;q=0.5", "text/html, application/xml;q=0.9", ""]
)
def test_every_accept_header_gets_json(accept, vm):
    answer = curl(f"/v2.1/servers/{vm}/os-interface", "--header", f"Accept: {accept}")
    assert answer.expect(200) == {"interfaceAttachments": []}
    assert answer.headers["content-type"] == "application/json"


def test_compression_may_be_offered_and_tokens_of_any_kind_are_ignored(vm):
    arguments = ["--header", "Accept-Encoding: gzip, deflate, br", "--header", "User-Agent: gophercloud/v2.7.0"]
    for token in ("X-Auth-Token: gAAAAAB", "Authorization: Bearer x", "X-Auth-Token:", "Cookie: a=b"):
        answer = curl(f"/v2.1/servers/{vm}/os-interface", *arguments, "--header", token)
        assert answer.expect(200) == {"interfaceAttachments": []} and "content-encoding" not in answer.headers


def test_a_delete_may_say_that_its_missing_body_is_json(network, vm):
    port = attach(vm, {"net_id": network}).expect(200)["interfaceAttachment"]["port_id"]
    path = f"/v2.1/servers/{vm}/os-interface/{port}"
    assert curl(path, *JSON, *TOKEN, "--request", "DELETE").expect(202) is None
    # The same once more, with a body that nobody asked for.
    assert curl(path, *JSON, "--request", "DELETE", "--data", "{}").status in (202, 404)


def test_both_spellings_of_the_microversion_are_answered_in_kind(network, vm):
    attach(vm, {"net_id": network, "tag": "a"}, "--header", "OpenStack-API-Version: compute 2.49").expect(200)
    path = f"/v2.1/servers/{vm}/os-interface"
    for header in ("OpenStack-API-Version: compute 2.70", "X-OpenStack-Nova-API-Version: 2.70"):
        answer = curl(path, "--header", header)
        assert answer.expect(200)["interfaceAttachments"][0]["tag"] == "a"
        assert answer.headers["openstack-api-version"] == "compute 2.70"
        assert answer.headers["x-openstack-nova-api-version"] == "2.70"
    latest = curl(path, "--header", "OpenStack-API-Version: compute latest")
    assert latest.headers["openstack-api-version"] == "compute 2.70"


# Framing ---------------------------------------------------------------------------------------------------------------


def test_a_body_may_wait_for_100_continue(network, vm):
    attach(vm, {"net_id": network}, "--header", "Expect: 100-continue").expect(200)


def test_a_body_that_waits_gets_its_100_before_it_is_sent(network, vm):
    body = json.dumps({"interfaceAttachment": {"net_id": network}}).encode()
    raw = Raw(SOCKET)
    raw.send(f"POST /v2.1/servers/{vm}/os-interface HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n")
    raw.send(f"Expect: 100-continue\r\nContent-Length: {len(body)}\r\n\r\n")
    assert raw.head()[1] == 100
    raw.send(body)
    assert raw.answer()[1] == 200
    raw.close()


def test_a_body_may_come_in_chunks(network, vm):
    attach(vm, {"net_id": network}, "--header", "Transfer-Encoding: chunked").expect(200)


def test_http_1_0_is_answered_and_closed(network, vm):
    answer = attach(vm, {"net_id": network}, "--http1.0")
    assert answer.expect(200)["interfaceAttachment"]["net_id"] == network
    raw = Raw(SOCKET)
    raw.send(f"GET /v2.1/servers/{vm}/os-interface HTTP/1.0\r\n\r\n")
    assert raw.answer()[1] == 200
    assert raw.ended()
    raw.close()


def test_http_1_0_may_ask_to_keep_the_connection(vm):
    raw = Raw(SOCKET)
    for _ in range(2):
        raw.send(f"GET /v2.1/servers/{vm}/os-interface HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        assert raw.answer()[1] == 200
    raw.close()


def test_a_client_may_close_after_each_answer(vm):
    raw = Raw(SOCKET)
    raw.send(f"GET /v2.1/servers/{vm} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    _, status, headers, _ = raw.answer()
    assert (status, headers["connection"]) == (200, "close")
    assert raw.ended()
    raw.close()


def test_requests_may_be_sent_before_the_answers_are_read(vm):
    raw = Raw(SOCKET)
    for path in ("/v2.1/servers", f"/v2.1/servers/{vm}", "/v2.0/ports", "/nowhere"):
        raw.send(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert [raw.answer()[1] for _ in range(4)] == [200, 200, 200, 404]
    raw.close()


@pytest.mark.parametrize("host", ["localhost", "10.0.0.1:8774", "[::1]:9696", "cloud.example.org", ""])
def test_any_host_is_ours_and_links_lead_back_to_it(host, vm):
    raw = Raw(SOCKET)
    raw.send(f"GET /v2.1/servers/{vm} HTTP/1.1\r\nHost: {host}\r\n\r\n")
    shown = raw.answer()[3]["server"]
    assert shown["links"][0]["href"] == f"http://{host or 'localhost'}/v2.1/servers/{vm}"
    raw.close()


def test_a_proxys_absolute_addresses_are_understood(vm):
    raw = Raw(SOCKET)
    raw.send(f"GET http://cloud.example.org:8774/v2.1/servers/{vm} HTTP/1.1\r\nHost: cloud.example.org:8774\r\n\r\n")
    assert raw.answer()[3]["server"]["id"] == vm
    raw.close()


def test_head_is_get_without_the_body(vm):
    for path in ("/", f"/v2.1/servers/{vm}/os-interface", "/v2.0/ports", "/nicd/v1/health"):
        got, asked = curl(path), curl(path, "--head")
        assert (asked.status, asked.body) == (200, None), path
        if path != "/nicd/v1/health":
            assert asked.headers["content-length"] == got.headers["content-length"], path


# Discovery -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/v2.1", "/v2.1/", "/v2", "/v2/", "/v2.0", "/v2.0/"])
def test_version_documents_are_there_with_and_without_a_slash(path):
    document = curl(path).expect(200)["version"]
    assert document["status"] in ("CURRENT", "SUPPORTED")
    [link] = [link["href"] for link in document["links"] if link["rel"] == "self"]
    assert link == BASE + path.rstrip("/") + "/"
    assert curl(link.removeprefix(BASE)).expect(200)["version"] == document


def test_the_root_lists_compute_versions_with_their_microversions():
    versions = {version["id"]: version for version in curl("/").expect(200)["versions"]}
    assert (versions["v2.1"]["min_version"], versions["v2.1"]["version"]) == ("2.1", "2.70")
    assert (versions["v2.0"]["min_version"], versions["v2.0"]["version"]) == ("", "")


def test_each_extension_that_is_listed_has_a_page_of_its_own():
    listed = curl("/v2.0/extensions").expect(200)["extensions"]
    for one in listed:
        assert curl(f"/v2.0/extensions/{one['alias']}").expect(200) == {"extension": one}
    assert curl("/v2.0/extensions/router").expect(404)["NeutronError"]["type"] == "ExtensionNotFound"


def test_what_is_not_there_is_said_in_the_dialect_of_its_path(vm):
    for path, key in (
        ("/v2.1/flavors/m1.small", "itemNotFound"),
        ("/v2.1/images", "itemNotFound"),
        ("/os-networksv2/blue", "itemNotFound"),
        (f"/v2/1/servers/{vm}/os-volume_attachments", "itemNotFound"),
        ("/v2.0/routers", "NeutronError"),
        ("/v3/auth/tokens", "itemNotFound"),
    ):
        assert list(curl(path).expect(404)) == [key]
    refused = curl("/v2.1/servers", *JSON, "--data", "{}")
    assert refused.expect(405)["badMethod"]["code"] == 405
    assert set(refused.headers["allow"].replace(" ", "").split(",")) == {"GET", "HEAD"}


# Ids ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spelling", [str.upper, lambda text: text.replace("-", "")], ids=["upper", "plain"])
def test_ids_may_be_spelt_otherwise_and_are_answered_as_usual(spelling, network, vm):
    made = attach(spelling(vm), {"net_id": spelling(network)}).expect(200)["interfaceAttachment"]
    assert made["net_id"] == network
    port = made["port_id"]
    shown = curl(f"/v2.1/servers/{spelling(vm)}/os-interface/{spelling(port)}").expect(200)["interfaceAttachment"]
    assert shown == made and str(uuid.UUID(port)) == port
    assert curl(f"/v2.0/ports/{spelling(port)}").expect(200)["port"]["device_id"] == vm
    found = curl(f"/v2.0/ports?device_id={spelling(vm)}&network_id={spelling(network)}").expect(200)["ports"]
    assert [found["id"] for found in found] == [port]
    curl(f"/servers/{spelling(vm)}/os-virtual-interfacesv2/{spelling(port)}", "--request", "DELETE").expect(200)


def test_a_macs_spelling_does_not_matter(api, network):
    port = {"network_id": network, "mac_address": "FA:16:3E:00:00:07"}
    made = api.call("POST", "/v2.0/ports", {"port": port}, 201).json()["port"]
    assert made["mac_address"] == "fa:16:3e:00:00:07"
    again = {"network_id": network, "mac_address": "fa-16-3e-00-00-07"}
    assert api.call("POST", "/v2.0/ports", {"port": again}).status_code in (400, 409)


def test_an_ipv6_addresss_spelling_does_not_matter(api, network, vm):
    long = "2001:0DB8:0000:0000:0000:0000:0000:00AA"
    made = attach(vm, {"net_id": network, "fixed_ips": [{"ip_address": long}]}).expect(200)["interfaceAttachment"]
    assert made["fixed_ips"][0]["ip_address"] == "2001:db8::aa"
    for spelling in (long, "2001:db8::aa", "2001:db8:0::00aa"):
        found = api.get("/v2.0/ports", params={"fixed_ips": f"ip_address={spelling}"})["ports"]
        assert [port["id"] for port in found] == [made["port_id"]], spelling


# Lists ----------------------------------------------------------------------------------------------------------------


def make_ports(api, network, names):
    body = {"ports": [{"network_id": network, "name": name} for name in names]}
    return [port["id"] for port in api.call("POST", "/v2.0/ports", body, 201).json()["ports"]]


def test_following_the_next_links_gives_each_entry_once_and_keeps_filters_and_order(api, network):
    other = api.network("198.51.100.0/24")
    make_ports(api, other, ["x"] * 3)
    make_ports(api, network, ["b", "a", "d", "c", "e"])
    address, names = f"/v2.0/ports?network_id={network}&sort_key=name&sort_dir=desc&limit=2&fields=name&fields=id", []
    pages = 0
    while address:
        page = api.get(address)
        names += [port["name"] for port in page["ports"]]
        assert all(port.keys() == {"name", "id"} for port in page["ports"])
        links = {link["rel"]: link["href"] for link in page.get("ports_links", [])}
        address = links.get("next", "").removeprefix(BASE)
        pages += 1
    assert names == ["e", "d", "c", "b", "a"] and pages == 3


def test_counting_on_with_markers_until_a_page_is_empty_gives_each_entry_once(api, network):
    made = make_ports(api, network, ["a", "b", "c", "d", "e"])
    found, marker = [], ""
    while True:
        page = api.get(f"/v2.0/ports?limit=2{marker}")["ports"]
        if not page:
            break
        found += [port["id"] for port in page]
        marker = f"&marker={page[-1]['id']}"
    assert sorted(found) == sorted(made)


def test_fields_and_filters_of_one_name_may_be_repeated(api, network):
    make_ports(api, network, ["a", "b", "c"])
    found = api.get("/v2.0/ports?name=a&name=c&fields=name&sort_key=name")["ports"]
    assert found == [{"name": "a"}, {"name": "c"}]
    assert api.get(f"/v2.0/networks/{network}?fields=id&fields=mtu")["network"].keys() == {"id", "mtu"}


def test_what_cannot_be_filtered_by_is_named(api):
    refused = api.call("GET", "/v2.0/ports?colour=red", expect=400).json()["NeutronError"]
    assert refused["reason"] == "bad_query" and "colour" in refused["message"]


def test_novas_lists_ignore_parameters_they_do_not_know(vm):
    for query in ("?limit=10", "?all_tenants=1", "?deleted=False&sort_key=created_at"):
        assert curl(f"/v2.1/servers{query}").expect(200)["servers"][0]["id"] == vm
        assert curl(f"/v2.1/servers/{vm}/os-interface{query}").expect(200) == {"interfaceAttachments": []}


def test_a_server_is_found_by_name_as_command_line_clients_do(api):
    named = api.server({"kind": "vm"}, name="by name")
    curl("/v2.1/servers/by%20name").expect(404)
    [found] = curl("/v2.1/servers/detail?name=by%20name").expect(200)["servers"]
    assert (found["id"], found["name"], found["status"]) == (named, "by name", "ACTIVE")
    assert found["links"] == [{"rel": "self", "href": f"{BASE}/v2.1/servers/{named}"}]


# Bodies ---------------------------------------------------------------------------------------------------------------


def test_what_go_programs_send_for_networks_subnets_and_ports_is_taken(api):
    make = lambda what, body: api.call("POST", f"/v2.0/{what}s", {what: body}, 201).json()[what]
    network = make("network", {"name": "blue", "admin_state_up": True, "shared": False, "tenant_id": "t"})
    assert network["project_id"] == "t"
    subnet = make("subnet", {"network_id": network["id"], "cidr": "192.0.2.0/24", "ip_version": 4, "enable_dhcp": False})
    ips = [{"subnet_id": subnet["id"], "ip_address": "192.0.2.40"}]
    port = make("port", {"network_id": network["id"], "name": "p", "admin_state_up": True, "fixed_ips": ips, "security_groups": []})
    assert port["fixed_ips"] == ips
    changed = api.call("PUT", f"/v2.0/ports/{port['id']}", {"port": {"name": "q", "allowed_address_pairs": []}}, 200)
    assert changed.json()["port"]["name"] == "q"


def test_rubys_rackspace_client_is_understood(network, vm):
    path = f"/v2/658405/servers/{vm}/os-virtual-interfacesv2"
    headers = [*JSON, *TOKEN, "--header", "Accept: application/json", "--header", "Connection: close"]
    body = json.dumps({"virtual_interface": {"network_id": network}})
    [made] = curl(path, *headers, "--data-binary", "@-", body=body).expect(200)["virtual_interfaces"]
    assert curl(path, *headers).expect(200)["virtual_interfaces"] == [made]
    assert curl(f"{path}/{made['id']}", *headers, "--request", "DELETE").expect(200) is None


def test_white_space_and_escapes_in_json_do_not_matter(network, vm):
    body = f'\r\n\t {{ "interface\\u0041ttachment" :\n {{ "net_id":"{network}" }} }} \n'
    path = f"/v2.1/servers/{vm}/os-interface"
    curl(path, *JSON, "--data-binary", "@-", body=body).expect(200)


def test_names_of_any_script_come_back_as_they_were_given(api):
    for name in ("blåbær", "青", "a'b\"c\\d", "😀", "", " "):
        made = api.call("POST", "/v2.0/networks", {"network": {"name": name}}, 201).json()["network"]
        assert made["name"] == name
        found = api.get("/v2.0/networks", params={"name": name})["networks"]
        assert [found["id"] for found in found] == [made["id"]]
