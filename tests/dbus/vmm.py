"""A VMM's launcher without privileges: asks nicd for a port's tap over D-Bus and becomes QEMU with the descriptors.

    vmm.py SOCKET OBJECT-PATH PROGRAM ARGUMENT…

In the arguments `{fds}` is replaced by the descriptors' numbers, with colons between them. D-Bus is spoken by hand (D-Bus
specification, "Message Protocol"), so that nothing but Python is needed, and as a second witness of what is on the wire.
"""

import array
import os
import socket
import struct
import sys

ROOM = array.array("i").itemsize * 64


def padded(data, to):
    return data + b"\0" * (-len(data) % to)


def text(value):
    return struct.pack("<I", len(value)) + value.encode() + b"\0"


def call(serial, destination, path, interface, member):
    fields = b""
    for code, kind, value in ((1, "o", path), (2, "s", interface), (3, "s", member), (6, "s", destination)):
        fields = padded(fields, 8) + bytes([code, 1]) + kind.encode() + b"\0" + text(value)
    return padded(struct.pack("<cBBBIII", b"l", 1, 0, 1, 0, serial, len(fields)) + fields, 8)


def fields_of(header):
    """The fields of strings and numbers, by code; those of other types are of none we ask for."""
    found, at, end = {}, 16, 16 + struct.unpack_from("<I", header, 12)[0]
    while at < end:
        at += -at % 8
        code, length = header[at], header[at + 1]
        kind = header[at + 2 : at + 2 + length].decode()
        at += 3 + length
        if kind in ("s", "o", "u"):
            at += -at % 4
            number = struct.unpack_from("<I", header, at)[0]
            at += 4
            if kind != "u":
                found[code] = header[at : at + number].decode()
                at += number + 1
            else:
                found[code] = number
        elif kind == "g":
            found[code] = header[at + 1 : at + 1 + header[at]].decode()
            at += header[at] + 2
        else:
            raise SystemExit(f"field {code} of type {kind}")
    return found


class Bus:
    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.connect(path)
        self.bytes, self.descriptors, self.serial = b"", [], 0
        self.socket.sendall(b"\0AUTH EXTERNAL " + str(os.geteuid()).encode().hex().encode() + b"\r\n")
        assert self.line().startswith(b"OK")
        self.socket.sendall(b"NEGOTIATE_UNIX_FD\r\n")
        assert self.line() == b"AGREE_UNIX_FD"
        self.socket.sendall(b"BEGIN\r\n")
        self.call("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "Hello")

    def more(self):
        data, ancillary, _, _ = self.socket.recvmsg(65536, socket.CMSG_SPACE(ROOM))
        assert data, "the bus has closed the connection"
        self.bytes += data
        for level, kind, payload in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                got = array.array("i")
                got.frombytes(payload[: len(payload) - len(payload) % got.itemsize])
                self.descriptors.extend(got)

    def take(self, length):
        while len(self.bytes) < length:
            self.more()
        taken, self.bytes = self.bytes[:length], self.bytes[length:]
        return taken

    def line(self):
        while b"\r\n" not in self.bytes:
            self.more()
        line, self.bytes = self.bytes.split(b"\r\n", 1)
        return line

    def message(self):
        head = self.take(16)
        assert head[:1] == b"l", "the other endianness"
        body_length, fields_length = struct.unpack_from("<I", head, 4)[0], struct.unpack_from("<I", head, 12)[0]
        header = head + self.take(fields_length + -fields_length % 8)
        return head[1], fields_of(header), self.take(body_length)

    def call(self, *what):
        """The answer's body; an error ends the program."""
        self.serial += 1
        self.socket.sendall(call(self.serial, *what))
        while True:
            kind, fields, body = self.message()
            if fields.get(5) != self.serial:
                continue
            if kind == 3:
                length = struct.unpack_from("<I", body)[0]
                raise SystemExit(f"{fields[4]}: {body[4 : 4 + length].decode()}")
            return body


path, port, *program = sys.argv[1:]
bus = Bus(path)
body = bus.call("org.nicd.Agent1", port, "org.nicd.Agent1.Port", "OpenTap")
indexes = struct.unpack_from(f"<{struct.unpack_from('<I', body)[0] // 4}I", body, 4)
descriptors = [bus.descriptors[index] for index in indexes]
for descriptor in descriptors:
    os.set_inheritable(descriptor, True)
numbers = ":".join(map(str, descriptors))
os.execvp(program[0], [argument.replace("{fds}", numbers) for argument in program])
