"""Sends from eth0 of the namespace it runs in everything that could reach a host: python3 guest.py SECONDS HOST_V4 HOST_V6 MAC..."""
import socket
import struct
import sys
import time

SRC = bytes.fromhex("0200000000aa")
FROM4, FROM6 = socket.inet_aton("192.0.2.9"), socket.inet_pton(socket.AF_INET6, "fe80::bad")
PORT = 9999


def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ip4(to, protocol, payload, ttl=64):
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(payload), 1, 0, ttl, protocol, 0, FROM4, to)
    return 0x0800, head[:10] + struct.pack("!H", checksum(head)) + head[12:] + payload


def ip6(to, header, payload, at, hops=255):
    pseudo = FROM6 + to + struct.pack("!IHBB", len(payload), 0, 0, header)
    total = struct.pack("!H", checksum(pseudo + payload) or 0xFFFF)
    payload = payload[:at] + total + payload[at + 2:]
    return 0x86DD, struct.pack("!IHBB", 6 << 28, len(payload), header, hops) + FROM6 + to + payload


def udp(source, target, data=b"from a guest"):
    return struct.pack("!HHHH", source, target, 8 + len(data), 0) + data


def tcp4(to):
    head = struct.pack("!HHIIBBHHH", 999, PORT, 1, 0, 0x50, 2, 1024, 0, 0)
    total = checksum(FROM4 + to + struct.pack("!BBH", 0, 6, len(head)) + head)
    return head[:16] + struct.pack("!H", total) + head[18:]


def arp(to, operation=1, sender=FROM4):
    return 0x0806, struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation) + SRC + sender + b"\0" * 6 + to


def packets(host4, host6):
    v6 = lambda text: socket.inet_pton(socket.AF_INET6, text)
    v4 = socket.inet_aton
    echo4 = struct.pack("!BBHHH", 8, 0, 0, 7, 7)
    echo4 = echo4[:2] + struct.pack("!H", checksum(echo4)) + echo4[4:]
    igmp = struct.pack("!BBH4s", 0x11, 1, 0, b"\0" * 4)
    igmp = igmp[:2] + struct.pack("!H", checksum(igmp)) + igmp[4:]
    link = b"\x01\x01" + SRC
    icmp6 = lambda to, kind, body, hops=255: ip6(v6(to), 58, struct.pack("!BBH", kind, 0, 0) + body, 2, hops)
    prefix = struct.pack("!BBBBIII", 3, 4, 64, 0xC0, 86400, 14400, 0) + v6("fd66::")
    mtu, rdnss = struct.pack("!BBHI", 5, 1, 0, 1300), struct.pack("!BBHI", 25, 3, 0, 1800) + v6("fd66::53")
    route = struct.pack("!BBBBI", 24, 2, 48, 0, 1800) + v6("fd67::")[:8]
    advert = struct.pack("!BBHII", 64, 0, 1800, 0, 0) + link + prefix + mtu + rdnss + route
    for to in (v4(host4), v4("127.0.0.1"), v4("198.51.100.7"), v4("255.255.255.255"), v4("224.0.0.1"), v4("239.1.2.3")):
        yield arp(to)
        yield ip4(to, 1, echo4)
        yield ip4(to, 17, udp(999, PORT))
        yield ip4(to, 6, tcp4(to))
    yield arp(v4(host4), 2, v4(host4))
    yield arp(v4("192.0.2.9"), 2)
    for source, target in ((68, 67), (67, 68)):
        yield ip4(v4("255.255.255.255"), 17, udp(source, target, b"\x01\x01\x06\0" + b"\0" * 236 + b"\x63\x82\x53\x63\x35\x01\x01\xff"))
    yield ip4(v4("224.0.0.1"), 2, igmp, 1)
    for to in ("ff02::1", host6):
        yield icmp6(to, 134, advert)
        yield icmp6(to, 137, b"\0" * 4 + v6("fe80::bad") + v6("2001:db8:9::1") + b"\x02\x01" + SRC)
        yield icmp6(to, 136, b"\x60\0\0\0" + v6(host6) + b"\x02\x01" + SRC)
    yield icmp6("ff02::1", 130, b"\0" * 20, 1)
    for to in (host6, "ff02::1", "ff02::2", "ff02::1:ff00:77", "::1", "2001:db8:9::1"):
        yield icmp6(to, 135, b"\0" * 4 + v6(host6) + link)
        yield icmp6(to, 133, b"\0" * 4 + link)
        yield icmp6(to, 128, b"\0\x07\0\x07")
        yield ip6(v6(to), 17, udp(999, PORT), 6)
        yield ip6(v6(to), 17, udp(546, 547, b"\x01\0\0\x01"), 6)
    yield 0x88CC, b"\x02\x07\x04" + SRC + b"\x04\x03\x05p1\x06\x02\0\x78\0\0"
    yield 0x0027, b"\x42\x42\x03" + b"\0" * 36
    yield 0x88A8, b"\0\x05\x08\x06"


def main():
    seconds, host4, host6, *macs = sys.argv[1:]
    out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    while True:
        try:
            out.bind(("eth0", 0))
            break
        except OSError:
            time.sleep(0.001)  # there is no NIC yet
    fixed = ["ff:ff:ff:ff:ff:ff", "33:33:00:00:00:01", "01:00:5e:00:00:01"]
    local = [f"01:80:c2:00:00:{n:02x}" for n in range(16)]
    targets = [bytes.fromhex(mac.replace(":", "")) for mac in macs + fixed + local]
    frames = []
    for kind, payload in packets(host4, host6):
        for to in targets:
            frames.append(to + SRC + struct.pack("!H", kind) + payload)
            frames.append(to + SRC + struct.pack("!HHH", 0x8100, 5, kind) + payload)
            frames.append(to + SRC + struct.pack("!HHH", 0x8100, 0, kind) + payload)
    until = time.monotonic() + float(seconds)
    while True:
        for frame in frames:
            try:
                out.send(frame.ljust(60, b"\0"))
            except OSError:
                time.sleep(0.001)  # the NIC is down, or its queue is full
        if time.monotonic() >= until:
            return


main()
