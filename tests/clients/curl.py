"""curl on the socket, and its transcript as a value."""

import json
import subprocess
from dataclasses import dataclass

from conftest import BASE, SOCKET


@dataclass
class Answer:
    version: str
    status: int
    headers: dict
    body: object

    def expect(self, status):
        assert self.status == status, self
        return self.body


def curl(path, *arguments, body=None):
    """Runs curl and reads what it saw; `body` is given to it as standard input."""
    line = ["curl", "--silent", "--show-error", "--include", "--max-time", "20", "--unix-socket", SOCKET]
    given = body if body is None or isinstance(body, bytes) else body.encode()
    done = subprocess.run([*line, *arguments, BASE + path], input=given, capture_output=True, check=False)
    assert done.returncode == 0, f"curl {path}: {done.returncode} {done.stderr.decode()}"
    rest = done.stdout
    while True:
        head, _, rest = rest.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        version, status = first.split(" ")[:2]
        if status != "100":
            break
    headers = {name.lower(): value.strip() for name, value in (line.split(":", 1) for line in lines)}
    return Answer(version, int(status), headers, json.loads(rest) if rest else None)
