"""HTTP over a Unix socket for clients that know only URLs: the address stays http://localhost/…, the adapter dials the socket.

(requests_unixsocket's http+unix:// addresses do not survive keystoneauth, which uses URLs as format strings.)
"""

import json
import socket
import socketserver
import threading

import requests
import requests.adapters
import urllib3


def pool(path):
    """Connections to the socket at `path`, as urllib3 keeps them."""

    class Connection(urllib3.connection.HTTPConnection):
        def _new_conn(self):
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connection.settimeout(60)
            connection.connect(path)
            return connection

    class Pool(urllib3.HTTPConnectionPool):
        ConnectionCls = Connection

    return Pool("localhost", maxsize=8)


def session(path):
    """A requests session whose http://localhost/ is the socket at `path`."""
    connections = pool(path)

    class Adapter(requests.adapters.HTTPAdapter):
        def get_connection_with_tls_context(self, request, verify, proxies=None, cert=None):
            return connections

    made = requests.Session()
    made.trust_env = False
    made.mount("http://localhost/", Adapter())
    return made


class Proxy(socketserver.ThreadingTCPServer):
    """Carries connections on a TCP port of 127.0.0.1 to the socket at `path`, byte for byte: for whole programs as clients."""

    allow_reuse_address = daemon_threads = True

    def __init__(self, path):
        class Handler(socketserver.BaseRequestHandler):
            def handle(self):
                with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
                    other.connect(path)
                    back = threading.Thread(target=carry, args=(other, self.request), daemon=True)
                    back.start()
                    carry(self.request, other)
                    back.join()

        super().__init__(("127.0.0.1", 0), Handler)
        self.base = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, daemon=True).start()


def carry(source, target):
    """Passes bytes on until their end, and the end as well."""
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass


class Raw:
    """One connection as bytes, for clients whose HTTP is of another kind than ours."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(20)
        self.socket.connect(path)
        self.file = self.socket.makefile("rb")

    def send(self, data):
        self.socket.sendall(data if isinstance(data, bytes) else data.encode())

    def head(self):
        """The status line and the headers, names in lower case."""
        version, status, _ = self.file.readline().decode().split(" ", 2)
        headers = {}
        while line := self.file.readline().decode().strip():
            name, value = line.split(":", 1)
            headers[name.lower()] = value.strip()
        return version, int(status), headers

    def answer(self):
        """One whole answer: its version, status, headers, and its body as JSON or None."""
        version, status, headers = self.head()
        if "content-length" in headers:
            body = self.file.read(int(headers["content-length"]))
        elif status in (204, 304):
            body = b""
        else:
            body = self.file.read()
        return version, status, headers, json.loads(body) if body else None

    def ended(self):
        """Waits for the end of the connection: nothing more may come."""
        return self.file.read() == b""

    def close(self):
        self.file.close()
        self.socket.close()
