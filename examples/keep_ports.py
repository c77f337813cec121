"""Keeps a server's ports on a network attached through restarts of nicd, of this program and of the host's network: a template for a control
plane's own code. It needs httpx.

    python3 keep_ports.py /run/nicd/nicd.sock SERVER NETWORK COUNT

It follows the events, lists once, attaches what is missing and detaches what is too much, and then does so again for each event
that says that a port came or went. Ports on other networks are left alone. After a restart of nicd it opens the stream again behind
the last event it saw; `lost` means: list again. What is listed is the truth, so this program remembers nothing. The first error of
an outage is printed on stderr, and again one with another reason.
"""

import json
import random
import signal
import sys
import time
import uuid

import httpx

PAUSES = (0.05, 2.0)  # seconds: the first and the longest between two attempts
REFUSED = 1.0  # seconds: the pause after a refusal, which a repeat may not mend
SILENCE = 60.0  # seconds; nicd sends an empty line every 15


class Nicd:
    """nicd by its socket. A call that cannot reach it, loses its connection or gets 503 is repeated until it is answered."""

    def __init__(self, socket):
        self.http = httpx.Client(transport=httpx.HTTPTransport(uds=socket), base_url="http://localhost", timeout=120)

    def call(self, method, path, body=None, headers=None):
        """The answer's JSON. A repeated DELETE whose object is gone by then has succeeded."""
        # One key for all attempts: nicd executes the call once.
        headers = {"Idempotency-Key": str(uuid.uuid4()), **(headers or {})} if method == "POST" else headers
        lost, outage = False, Outage()
        while True:
            try:
                answer = self.http.request(method, path, json=body, headers=headers)
            except httpx.TransportError as error:
                lost = True
                outage.wait(error)
            else:
                if answer.status_code == 404 and method == "DELETE" and lost:
                    return None
                if answer.status_code != 503:
                    answer.raise_for_status()
                    return answer.json() if answer.content else None
                outage.wait(answer)

    def events(self):
        """Every event from now on. None says that the stream is there, and that earlier events are not in it."""
        last, outage = None, Outage()
        timeout = httpx.Timeout(120, read=SILENCE)
        while True:
            headers = {"Accept": "application/x-ndjson"} | ({"Last-Event-ID": str(last)} if last is not None else {})
            try:
                with self.http.stream("GET", "/nicd/v1/events", headers=headers, timeout=timeout) as stream:
                    if stream.is_error:
                        stream.read()
                        outage.wait(stream)
                        continue
                    if last is None:
                        yield None
                    for line in stream.iter_lines():
                        # An empty line says that the stream is open.
                        outage = Outage()
                        if line:
                            event = json.loads(line)
                            last = event["seq"]
                            yield event
                outage.wait("nicd closed the event stream")
            except httpx.TransportError as error:
                outage.wait(error)


class Outage:
    """Growing pauses without end, half of each at random, so that many clients do not come at the same moment."""

    def __init__(self):
        self.pause, self.longest = PAUSES
        self.told = []

    def wait(self, failure):
        """Waits before the next attempt, at least as long as a refusal's Retry-After says; prints what was not printed yet."""
        refused = isinstance(failure, httpx.Response)
        reason = failure.text if refused else None
        if reason not in self.told:
            print("nicd:", reason or failure, file=sys.stderr, flush=True)
            self.told = [reason]
        least = failure.headers.get("Retry-After", "") if refused else ""
        time.sleep(max(self.pause * random.uniform(0.5, 1.0), float(least) if least.isdigit() else 0))
        self.pause = min(2 * self.pause, self.longest)


def settle(nicd, server, network, count):
    """Attaches what is missing, and detaches what is too much."""
    listed = nicd.call("GET", f"/v2.0/ports?device_id={server}&network_id={network}")["ports"]
    attached = [port for port in listed if port["nicd:phase"] != "detaching"]
    for port in attached[count:]:
        nicd.call("DELETE", f"/v2.1/servers/{server}/os-interface/{port['id']}")
        print("detached", port["id"], flush=True)
    for _ in range(count - len(attached)):
        body = {"interfaceAttachment": {"net_id": network}}
        nic = nicd.call("POST", f"/v2.1/servers/{server}/os-interface", body)["interfaceAttachment"]
        print("attached", nic["port_id"], nic["mac_addr"], nic["port_state"], flush=True)


def may_differ(event, server):
    """Whether the list may be another after this event; None and `lost` say that events may have been missed."""
    if event is None or event["event"] == "lost":
        return True
    came_or_went = event["event"] in ("port.created", "port.deleted") or event["phase"] in ("detaching", "unbound")
    return came_or_went and event["server_id"] == server


def main(socket, server, network, count):
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    nicd = Nicd(socket)
    for event in nicd.events():
        settled = not may_differ(event, server)
        while not settled:
            try:
                settle(nicd, server, network, int(count))
                settled = True
            except httpx.HTTPStatusError as refused:
                print(refused.response.text, file=sys.stderr)
                time.sleep(REFUSED)


if __name__ == "__main__":
    main(*sys.argv[1:])
