"""Sends from a link to a MAC one TCP segment that is to be cut into frames on its way, and then a frame with "end of frames".

    sender.py LINK MAC
"""

import socket
import struct
import sys

SOL_PACKET, PACKET_VNET_HDR = 263, 15

link, mac = sys.argv[1], bytes.fromhex(sys.argv[2].replace(":", ""))
packet = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
packet.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
packet.bind((link, 0x0800))
ethernet = mac + packet.getsockname()[4] + b"\x08\x00"
payload = b"x" * 20000
addresses = socket.inet_aton("192.0.2.201") + socket.inet_aton("192.0.2.202")
ip = bytearray(struct.pack(">BBHHHBBH", 0x45, 0, 40 + len(payload), 1, 0, 64, 6, 0) + addresses)
total = sum(struct.unpack(">10H", ip))
total = (total & 0xFFFF) + (total >> 16)
ip[10:12] = struct.pack(">H", ~total & 0xFFFF)
tcp = struct.pack(">HHIIBBHHH", 1, 2, 3, 4, 0x50, 0x10, 1000, 0, 0)
# Flags: the checksum is still to be made. Kind: TCP over IPv4.
header = struct.pack("=BBHHHH", 1, 1, 54, 1400, 34, 16)
packet.send(header + ethernet + bytes(ip) + tcp + payload)
end = ethernet[:12] + b"\x88\xb5" + b"end of frames".ljust(46)
packet.send(struct.pack("=BBHHHH", 0, 0, 0, 0, 0, 0) + end)
