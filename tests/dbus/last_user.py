"""A tap's last user, who changes what there is to change without privileges, and holds it until its input ends.

    last_user.py DEVICE QUEUES

And with `--read SECONDS FD…` the next user, who has the descriptors and says in JSON how the tap is, and how long the frames
are that come until one has the octets "end of frames" in it.
"""

import ctypes
import fcntl
import json
import os
import platform
import select
import socket
import struct
import sys
import time

TUNSETIFF, TUNGETIFF = 0x400454CA, 0x800454D2
TUNSETOFFLOAD, TUNSETTXFILTER, TUNSETSNDBUF, TUNGETSNDBUF = 0x400454D0, 0x400454D1, 0x400454D4, 0x800454D3
TUNATTACHFILTER, TUNGETVNETHDRSZ, TUNSETVNETHDRSZ = 0x401054D5, 0x800454D7, 0x400454D8
TUNSETVNETLE, TUNGETVNETLE, TUNSETFILTEREBPF, TUNSETSTEERINGEBPF = 0x400454DC, 0x800454DD, 0x800454E1, 0x800454E0
TUNSETCARRIER, TUNSETOWNER = 0x400454E2, 0x400454CC
IFF_TAP, IFF_NO_PI, IFF_NAPI, IFF_MULTI_QUEUE, IFF_VNET_HDR = 0x2, 0x1000, 0x10, 0x100, 0x4000
CSUM_TSO4_TSO6 = 1 | 2 | 4
SIOCETHTOOL, ETHTOOL_GTXCSUM, ETHTOOL_GTSO = 0x8946, 0x16, 0x1E


def number(fd, request, value):
    fcntl.ioctl(fd, request, struct.pack("i", value))


def asked(fd, request):
    return struct.unpack("i", fcntl.ioctl(fd, request, struct.pack("i", 0)))[0]


def program():
    """An eBPF program that answers 0: as a filter it drops everything."""
    code = ctypes.create_string_buffer(bytes([0xB7, 0, 0, 0, 0, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0]))
    licence = ctypes.create_string_buffer(b"GPL")
    load = struct.pack("=IIQQIIQII16s", 1, 2, ctypes.addressof(code), ctypes.addressof(licence), 0, 0, 0, 0, 0, b"p")
    load = ctypes.create_string_buffer(load, 128)
    bpf = {"x86_64": 321, "aarch64": 280}[platform.machine()]
    fd = ctypes.CDLL(None, use_errno=True).syscall(bpf, 5, load, 128)
    assert fd >= 0, os.strerror(ctypes.get_errno())
    return fd


def last(device, queues):
    flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_NAPI | (IFF_MULTI_QUEUE if queues > 1 else 0)
    fds = []
    for _ in range(queues):
        fd = os.open("/dev/net/tun", os.O_RDWR)
        fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", device.encode(), flags))
        fds.append(fd)
    fd = fds[0]
    fcntl.ioctl(fd, TUNSETOFFLOAD, CSUM_TSO4_TSO6)
    number(fd, TUNSETVNETHDRSZ, 12)
    number(fd, TUNSETVNETLE, 1)
    number(fd, TUNSETSNDBUF, 4096)
    fcntl.ioctl(fd, TUNSETTXFILTER, struct.pack("HH6s", 0, 1, b"\x02\0\0\0\0\x77"))
    number(fd, TUNSETFILTEREBPF, program())
    number(fd, TUNSETSTEERINGEBPF, program())
    # Where the program lies is no address in another process: the kernel would read it at the next TUNSETIFF.
    code = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))
    fcntl.ioctl(fd, TUNATTACHFILTER, struct.pack("HxxxxxxQ", 1, ctypes.addressof(code)))
    number(fd, TUNSETCARRIER, 0)
    fcntl.ioctl(fd, TUNSETOWNER, 7)
    print("ready", flush=True)
    sys.stdin.read()


def feature(name, command):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        value = ctypes.create_string_buffer(struct.pack("II", command, 0))
        fcntl.ioctl(asking, SIOCETHTOOL, struct.pack("16sQ16x", name, ctypes.addressof(value)))
        return struct.unpack("II", value.raw[:8])[1]


def read(seconds, fds):
    name, flags = struct.unpack("16sH22x", fcntl.ioctl(fds[0], TUNGETIFF, struct.pack("40x")))
    told = {
        "napi": bool(flags & IFF_NAPI),
        "vnet_hdr": bool(flags & IFF_VNET_HDR),
        "header": asked(fds[0], TUNGETVNETHDRSZ),
        "little_endian": asked(fds[0], TUNGETVNETLE),
        "send_buffers": [asked(fd, TUNGETSNDBUF) for fd in fds],
        "checksums": feature(name, ETHTOOL_GTXCSUM),
        "segmentation": feature(name, ETHTOOL_GTSO),
    }
    print(json.dumps(told), flush=True)
    longest, ended, until = 0, False, time.monotonic() + seconds
    while time.monotonic() < until:
        ready, _, _ = select.select(fds, [], [], max(0, until - time.monotonic()))
        for fd in ready:
            frame = os.read(fd, 70000)
            longest = max(longest, len(frame))
            ended |= b"end of frames" in frame
        # The last frame may come by another queue than those before it, and be read first.
        if ended and longest > 1000:
            print(json.dumps({"longest": longest}), flush=True)
            return
    raise SystemExit(f"no end of frames in {seconds} s; the longest had {longest} octets")


if sys.argv[1] == "--read":
    read(float(sys.argv[2]), [int(fd) for fd in sys.argv[3].split(":")])
else:
    last(sys.argv[1], int(sys.argv[2]))
