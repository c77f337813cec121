"""schemathesis against nicd's own openapi.json, over the socket: no server error, no status, header or body beside the document.

NICD_FUZZ_EXAMPLES is the number of cases per operation and phase, NICD_FUZZ_SEED the seed: both are fixed unless given, so
that a failure comes again.
"""

import collections
import contextlib
import os
import re
import sys
import tempfile
import threading
import time
import zlib

import requests.adapters
import schemathesis
import schemathesis.cli
from schemathesis.checks import CHECKS

import unix

SOCKET = os.environ["NICD_TEST_SOCKET"]
EXAMPLES = os.environ.get("NICD_FUZZ_EXAMPLES", "30")
SEED = os.environ.get("NICD_FUZZ_SEED", "20261122")

# Fewer requests than this are no test of the document.
LEAST = 5000

ARGUMENTS = [
    "--config-file", os.path.join(os.path.dirname(os.path.abspath(__file__)), "schemathesis.toml"),
    "run", "http://localhost/nicd/v1/openapi.json",
    "--checks", "all",
    "--exclude-checks", "positive_data_acceptance",
    # It does not end; tests/flows.rs reads it.
    "--exclude-path", "/nicd/v1/events",
    "--max-examples", EXAMPLES,
    "--seed", SEED,
    "--generation-database", "none",
    "--continue-on-failure",
    "--request-timeout", "60",
    "--no-color",
]  # fmt: skip


UUID = re.compile("[0-9a-fA-F]{8}-?([0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}")


class World:
    """Things that are there whatever the run deletes, so that not every request is about nothing."""

    THINGS = tuple(f"{n:x}eeeeeee-0000-4000-8000-000000000000" for n in range(11))
    NETWORK, FOUR, SIX, SERVER, ATTACHED, ALONE, GROUP, RULE, TRUNK, PARENT, SUBPORT = THINGS
    EVERY = 25
    # What it does itself is not counted.
    NAME = "the world"

    def __init__(self):
        self.http, self.calls, self.job = unix.session(SOCKET), 0, None
        self.http.headers["User-Agent"] = self.NAME

    def send(self, method, path, key, body):
        self.http.request(method, "http://localhost" + path, json={key: body}).close()

    def make_job(self):
        """A job that detaches a port, which the next call attaches again: the job is kept."""
        path = f"http://localhost/v1/demo/cloudservers/{self.SERVER}/nics/delete"
        answer = self.http.post(path, json={"nics": [{"id": self.ATTACHED}]})
        self.job = answer.json().get("job_id") or self.job

    def keep(self):
        """Makes what is missing, every so many calls."""
        self.calls += 1
        if self.calls % self.EVERY != 1:
            return
        self.send("PUT", f"/nicd/v1/servers/{self.SERVER}", "server", {"guest": {"kind": "vm"}})
        self.send("POST", "/v2.0/networks", "network", {"id": self.NETWORK})
        for subnet, cidr in ((self.FOUR, "10.0.0.0/16"), (self.SIX, "2001:db8::/64")):
            self.send("POST", "/v2.0/subnets", "subnet", {"id": subnet, "network_id": self.NETWORK, "cidr": cidr})
        self.send("POST", "/v2.0/security-groups", "security_group", {"id": self.GROUP})
        rule = {"id": self.RULE, "security_group_id": self.GROUP, "direction": "ingress", "protocol": "tcp"}
        self.send("POST", "/v2.0/security-group-rules", "security_group_rule", rule)
        for port in (self.ATTACHED, self.ALONE, self.PARENT, self.SUBPORT):
            self.send("POST", "/v2.0/ports", "port", {"id": port, "network_id": self.NETWORK})
        subport = {"port_id": self.SUBPORT, "segmentation_type": "vlan", "segmentation_id": 7}
        self.send("POST", "/v2.0/trunks", "trunk", {"id": self.TRUNK, "port_id": self.PARENT, "sub_ports": [subport]})
        path = f"/v2.1/servers/{self.SERVER}/os-interface"
        self.send("POST", path, "interfaceAttachment", {"port_id": self.ATTACHED})
        if self.job is None:
            self.make_job()

    def known(self, name, path, value):
        """Three of four well-formed ids become one of a thing that is there; what is malformed stays."""
        if not isinstance(value, str) or not UUID.fullmatch(value):
            return value
        draw = zlib.crc32(value.encode())
        what = name if name != "id" else path.split("/{id}")[0].rsplit("/", 1)[-1]
        known = {
            "server": [self.SERVER], "servers": [self.SERVER],
            "port": [self.ATTACHED], "job": [self.job] if self.job else None, "port_id": [self.ALONE, self.SUBPORT],
            "ports": [self.ATTACHED, self.ALONE, self.SUBPORT],
            "trunks": [self.TRUNK],
            "networks": [self.NETWORK], "net_id": [self.NETWORK], "network_id": [self.NETWORK],
            "subnets": [self.FOUR, self.SIX], "subnet_id": [self.FOUR, self.SIX],
            "security-groups": [self.GROUP], "security_groups": [self.GROUP], "security-group-rules": [self.RULE],
            "security_group_id": [self.GROUP], "remote_group_id": [self.GROUP],
        }.get(what)  # fmt: skip
        return known[draw // 4 % len(known)] if known and draw % 4 else value

    def replace(self, value, path, name=""):
        """The same with ids that are known, at any depth."""
        if isinstance(value, dict):
            return {key: self.replace(inner, path, key) if key != "id" else inner for key, inner in value.items()}
        if isinstance(value, list):
            return [self.replace(inner, path, name) for inner in value]
        return self.known(name, path, value)


def hook(world):
    """Has schemathesis ask about that world."""

    @schemathesis.hook
    def map_path_parameters(context, path_parameters):
        path = context.operation.path
        return {name: world.known(name, path, value) for name, value in (path_parameters or {}).items()}

    @schemathesis.hook
    def map_body(context, body):
        return world.replace(body, context.operation.path)

    @schemathesis.hook
    def map_headers(context, headers):
        # A key that comes again is a mismatch and tests nothing else: most go.
        key = str((headers or {}).get("Idempotency-Key", ""))
        if re.fullmatch("[ -~]{1,64}", key) and zlib.crc32(key.encode()) % 8:
            headers = {name: value for name, value in headers.items() if name != "Idempotency-Key"}
        return headers

    @schemathesis.hook
    def before_call(context, case, kwargs):
        world.keep()


def detaching(response, case):
    """Whether a port is shown that is on its way out: it is until the kernel has let its device go."""
    shown = {"/ports/{id}": "port", "/os-interface/{port}": "interfaceAttachment"}
    keys = [key for path, key in shown.items() if case.operation.path.endswith(path)]
    if response.status_code != 200 or not keys:
        return False
    port = response.json()[keys[0]]
    return "DOWN" in (port.get("status"), port.get("port_state"))


def spare(world):
    """Has schemathesis take nothing for used after its end that the world has made again, or that is not at its end yet."""
    plain = CHECKS.get_one("use_after_free")

    def use_after_free(ctx, response, case):
        again = any(value in world.THINGS for value in (case.path_parameters or {}).values())
        return None if again or detaching(response, case) else plain(ctx, response, case)

    CHECKS.register(use_after_free)


class Counter:
    """Sends every request of this process to the socket, and counts the answers."""

    def __init__(self):
        self.statuses = collections.Counter()
        self.lock = threading.Lock()
        pool = unix.pool(SOCKET)
        plain, counter = requests.adapters.HTTPAdapter.send, self

        def send(adapter, request, *arguments, **more):
            answer = plain(adapter, request, *arguments, **more)
            if request.headers["User-Agent"] != World.NAME:
                with counter.lock:
                    counter.statuses[answer.status_code] += 1
            return answer

        requests.adapters.HTTPAdapter.send = send
        requests.adapters.HTTPAdapter.get_connection_with_tls_context = lambda *_, **__: pool

    def total(self):
        return self.statuses.total()


def main():
    world = World()
    hook(world)
    spare(world)
    counter, began = Counter(), time.monotonic()
    failed = 0
    # It keeps notes where it is run.
    with tempfile.TemporaryDirectory() as notes, contextlib.chdir(notes):
        try:
            failed = schemathesis.cli.schemathesis(ARGUMENTS, standalone_mode=False) or 0
        except SystemExit as end:
            failed = end.code or 0
    print(f"{counter.total()} requests in {time.monotonic() - began:.0f} s; by status: {dict(sorted(counter.statuses.items()))}")
    if failed:
        sys.exit(f"schemathesis: {failed}")
    if counter.total() < LEAST:
        sys.exit(f"fewer than {LEAST} requests")
    others = [status for status in counter.statuses if status >= 500 and status != 501]
    if others:
        sys.exit(f"server errors: {others}")


if __name__ == "__main__":
    main()
