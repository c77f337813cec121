"""Huawei Cloud's own SDK: NICs are added and deleted by jobs, which are polled, and listed; refusals are its exceptions."""

import time
import uuid

import pytest
from huaweicloudsdkcore.auth.credentials import BasicCredentials
from huaweicloudsdkcore.exceptions.exceptions import ClientRequestException, ServerResponseException
from huaweicloudsdkcore.http.http_config import HttpConfig
from huaweicloudsdkecs.v2 import (
    BatchAddServerNicOption,
    BatchAddServerNicsRequest,
    BatchAddServerNicsRequestBody,
    BatchDeleteServerNicOption,
    BatchDeleteServerNicsRequest,
    BatchDeleteServerNicsRequestBody,
    EcsClient,
    Ipv6Bandwidth,
    ListServerInterfacesRequest,
    ServerNicSecurityGroup,
    ShowJobRequest,
)

from conftest import SOCKET
from unix import Proxy


@pytest.fixture(scope="module")
def ecs():
    proxy = Proxy(SOCKET)
    config = HttpConfig.get_default_config()
    config.retry_times, config.timeout = 0, 60
    credentials = BasicCredentials("a key", "a secret", "demo")
    client = EcsClient.new_builder().with_http_config(config).with_credentials(credentials).with_endpoint(proxy.base)
    yield client.build()
    proxy.shutdown()
    proxy.server_close()


def add(ecs, server, *nics):
    body = BatchAddServerNicsRequestBody(nics=list(nics))
    return ecs.batch_add_server_nics(BatchAddServerNicsRequest(server_id=server, body=body)).job_id


def delete(ecs, server, *ports):
    body = BatchDeleteServerNicsRequestBody(nics=[BatchDeleteServerNicOption(id=port) for port in ports])
    return ecs.batch_delete_server_nics(BatchDeleteServerNicsRequest(server_id=server, body=body)).job_id


def ended(ecs, job):
    """Polls a job to its end, as the SDK's users do."""
    until = time.monotonic() + 20
    while (shown := ecs.show_job(ShowJobRequest(job_id=job))).status in ("INIT", "RUNNING"):
        assert time.monotonic() < until, shown
    return shown


def listed(ecs, server):
    return ecs.list_server_interfaces(ListServerInterfacesRequest(server_id=server))


def test_nics_are_added_listed_and_deleted(ecs, network, api):
    server = api.server({"kind": "vm", "queues": 2}, nic_limit=3)
    asked = BatchAddServerNicOption(subnet_id=network, ip_address="192.0.2.9", security_groups=[])
    done = ended(ecs, add(ecs, server, asked, BatchAddServerNicOption(subnet_id=network, ipv6_enable=True)))
    assert (done.status, done.job_type, done.error_code, done.fail_reason) == ("SUCCESS", "addNics", None, None)
    assert done.entities.sub_jobs_total == 2 and done.entities.server_id == server
    ports = [part.entities.nic_id for part in done.entities.sub_jobs]
    assert [part.status for part in done.entities.sub_jobs] == ["SUCCESS", "SUCCESS"]
    nics = listed(ecs, server)
    assert nics.attachable_quantity.free_nic == 1
    by_port = {nic.port_id: nic for nic in nics.interface_attachments}
    assert sorted(by_port) == sorted(ports)
    first = by_port[ports[0]]
    assert [ip.ip_address for ip in first.fixed_ips] == ["192.0.2.9"]
    assert (first.net_id, first.port_state, first.delete_on_termination, first.multiqueue_num) == (network, "DOWN", True, 2)
    assert len(by_port[ports[1]].fixed_ips) == 2
    gone = ended(ecs, delete(ecs, server, *ports))
    assert (gone.status, gone.job_type) == ("SUCCESS", "deleteNics")
    nics = listed(ecs, server)
    assert (nics.interface_attachments, nics.attachable_quantity.free_nic) == ([], 3)


def test_a_guest_that_is_a_namespace_is_active_at_once(ecs, network, guest):
    done = ended(ecs, add(ecs, guest, BatchAddServerNicOption(subnet_id=network)))
    assert done.entities.nic_id == done.entities.sub_jobs[0].entities.nic_id
    assert [nic.port_state for nic in listed(ecs, guest).interface_attachments] == ["ACTIVE"]


def test_a_nic_is_in_its_groups_where_the_kernel_tracks_connections(ecs, network, vm, api):
    group = api.call("POST", "/v2.0/security-groups", {"security_group": {"name": "web"}}, 201).json()["security_group"]["id"]
    asked = BatchAddServerNicOption(subnet_id=network, security_groups=[ServerNicSecurityGroup(id=group)])
    done = ended(ecs, add(ecs, vm, asked))
    if done.status == "FAIL":
        assert done.error_code == "Ecs.0002" and "connections" in done.fail_reason, done
        assert listed(ecs, vm).interface_attachments == []
    else:
        assert api.get(f"/v2.0/ports/{done.entities.nic_id}")["port"]["security_groups"] == [group]


def test_refusals_are_exceptions_with_otcs_codes(ecs, network, vm, api):
    stranger = str(uuid.uuid4())
    on = lambda **how: lambda: add(ecs, vm, BatchAddServerNicOption(**how))  # noqa: E731
    for call, status, code in [
        (on(subnet_id=stranger), 400, "Ecs.0038"),
        (on(subnet_id="blue"), 400, "Ecs.0005"),
        (on(port_id=stranger), 400, "Ecs.0307"),
        (on(subnet_id=network, ip_address="203.0.113.9"), 400, "Ecs.0039"),
        (on(subnet_id=network, security_groups=[ServerNicSecurityGroup(id=stranger)]), 400, "Ecs.0014"),
        (lambda: add(ecs, vm, *[BatchAddServerNicOption(subnet_id=network)] * 13), 400, "Ecs.0050"),
        (lambda: add(ecs, stranger, BatchAddServerNicOption(subnet_id=network)), 404, "Ecs.0114"),
        (lambda: listed(ecs, stranger), 404, "Ecs.0114"),
        (lambda: delete(ecs, vm, stranger), 400, "Ecs.0307"),
        (lambda: ecs.show_job(ShowJobRequest(job_id=uuid.uuid4().hex)), 404, "Ecs.0000"),
    ]:
        with pytest.raises(ClientRequestException) as refusal:
            call()
        assert (refusal.value.status_code, refusal.value.error_code) == (status, code), refusal.value
        assert refusal.value.request_id.startswith("req-") and refusal.value.error_msg
    with pytest.raises(ServerResponseException) as refusal:
        add(ecs, vm, BatchAddServerNicOption(subnet_id=network, ipv6_bandwidth=Ipv6Bandwidth(id=stranger)))
    assert refusal.value.status_code == 501 and "not built" in refusal.value.error_msg
    assert listed(ecs, vm).interface_attachments == []
