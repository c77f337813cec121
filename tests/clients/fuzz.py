"""schemathesis against nicd's own openapi.json, over the socket: no server error, no status, header or body beside the document.

NICD_FUZZ_EXAMPLES is the number of cases per operation and phase, NICD_FUZZ_SEED the seed: both are fixed unless given, so
that a failure comes again. The random states between two runs are those of the daemon, which starts empty.
"""

import collections
import os
import sys
import threading
import time

import requests.adapters
import schemathesis.cli

import unix

SOCKET = os.environ["NICD_TEST_SOCKET"]
EXAMPLES = os.environ.get("NICD_FUZZ_EXAMPLES", "60")
SEED = os.environ.get("NICD_FUZZ_SEED", "20261122")

# Fewer requests than this are no test of the document.
LEAST = 5000

ARGUMENTS = [
    "--config-file", "schemathesis.toml",
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


class Counter:
    """Sends every request of this process to the socket, and counts the answers."""

    def __init__(self):
        self.statuses = collections.Counter()
        self.lock = threading.Lock()
        pool = unix.pool(SOCKET)
        plain, counter = requests.adapters.HTTPAdapter.send, self

        def send(adapter, request, *arguments, **more):
            answer = plain(adapter, request, *arguments, **more)
            with counter.lock:
                counter.statuses[answer.status_code] += 1
            return answer

        requests.adapters.HTTPAdapter.send = send
        requests.adapters.HTTPAdapter.get_connection_with_tls_context = lambda *_, **__: pool

    def total(self):
        return self.statuses.total()


def main():
    counter, began = Counter(), time.monotonic()
    try:
        schemathesis.cli.schemathesis(ARGUMENTS, standalone_mode=False)
        failed = 0
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
