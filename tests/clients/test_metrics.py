"""The numbers as Prometheus' own Python library reads them."""

import math

from prometheus_client.parser import text_string_to_metric_families

from conftest import BASE


def families(api):
    answer = api.call("GET", "/metrics", expect=200)
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return {family.name: family for family in text_string_to_metric_families(answer.text)}


def value(families, name, **labels):
    """One sample's value; the parser names a counter's family without its _total."""
    samples = [sample for family in families.values() for sample in family.samples]
    found = [sample.value for sample in samples if sample.name == name and sample.labels == labels]
    assert len(found) == 1, (name, labels, found)
    return found[0]


def test_every_family_has_help_a_type_and_samples_of_it(api, network, vm):
    api.call("POST", f"/v2.1/servers/{vm}/os-interface", {"interfaceAttachment": {"net_id": network}}, 200)
    seen = families(api)
    assert len(seen) >= 20
    for name, family in seen.items():
        assert name.startswith("nicd_") and family.documentation and family.type in ("counter", "gauge", "histogram"), name
        assert family.samples, name
        assert all(math.isfinite(sample.value) and sample.value >= 0 for sample in family.samples), name
        keys = [(sample.name, tuple(sorted(sample.labels.items()))) for sample in family.samples]
        assert len(keys) == len(set(keys)), name


def test_histograms_are_cumulative_and_end_in_their_count(api, network, guest):
    port = api.call("POST", f"/v2.1/servers/{guest}/os-interface", {"interfaceAttachment": {"net_id": network}}, 200).json()
    api.call("DELETE", f"/v2.0/ports/{port['interfaceAttachment']['port_id']}", expect=204)
    for family in families(api).values():
        if family.type != "histogram":
            continue
        series = {}
        for sample in family.samples:
            if sample.name.endswith("_bucket"):
                rest = tuple(sorted((key, text) for key, text in sample.labels.items() if key != "le"))
                series.setdefault(rest, []).append((float(sample.labels["le"]), sample.value))
        assert series, family.name
        for rest, buckets in series.items():
            assert buckets == sorted(buckets) and buckets[-1][0] == math.inf, (family.name, rest)
            assert [count for _, count in buckets] == sorted(count for _, count in buckets), (family.name, rest)
            counts = [s.value for s in family.samples if s.name.endswith("_count") and tuple(sorted(s.labels.items())) == rest]
            assert counts == [buckets[-1][1]], (family.name, rest)


def test_what_is_counted_goes_up_by_what_was_done(api, network, guest):
    before = families(api)
    for _ in range(3):
        api.call("POST", f"/v2.1/servers/{guest}/os-interface", {"interfaceAttachment": {"net_id": network}}, 200)
    after = families(api)
    assert value(after, "nicd_attaches_total", result="ok") - value(before, "nicd_attaches_total", result="ok") == 3
    assert value(after, "nicd_attach_seconds_count") - value(before, "nicd_attach_seconds_count") == 3
    ports = api.http.get(BASE + "/nicd/v1/health").json()["ports"]
    unattached = {("DOWN", "no"): value(after, "nicd_ports", status="DOWN", attached="no")}
    counted = {(status, "yes"): value(after, "nicd_ports", status=status, attached="yes") for status in ports} | unattached
    assert {status: sum(number for (of, _), number in counted.items() if of == status) for status in ports} == ports
