"""Two network namespaces joined by a link of a given speed and delay: python3 bench/ranks/slow_link.py RATE_MBIT DELAY_MS COMMAND…

Creates the namespaces loram0 (10.77.0.1) and loram1 (10.77.0.2), each with a TUN device, and passes packets from one to the other, held back for
the delay and at the rate in each direction. Then runs the command, and removes the namespaces. Needs root, and no queueing discipline of the
kernel such as netem.
"""
import fcntl
import os
import struct
import subprocess
import sys
import threading
import time
from collections import deque

RATE, DELAY = float(sys.argv[1]) * 1e6 / 8, float(sys.argv[2]) / 1e3
MTU = 60000  # few packets a second, so that Python keeps up
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 1, 0x1000


def ip(*arguments, check=True):
    subprocess.run(["ip", *arguments], check=check, capture_output=not check)


def device(name, namespace, address, peer):
    fd = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH", name.encode(), IFF_TUN | IFF_NO_PI))
    ip("link", "set", name, "netns", namespace)
    ip("-n", namespace, "addr", "add", address, "peer", peer, "dev", name)
    ip("-n", namespace, "link", "set", name, "mtu", str(MTU), "txqueuelen", "1000", "up")
    ip("-n", namespace, "link", "set", "lo", "up")
    return fd


def carry(source, target):
    """Reads packets and writes each once it has been sent at the rate and has travelled for the delay."""
    queue, ready = deque(), threading.Condition()

    def deliver():
        while True:
            with ready:
                while not queue:
                    ready.wait()
                due, packet = queue.popleft()
            wait = due - time.monotonic()
            if wait > 0:
                time.sleep(wait)
            try:
                os.write(target, packet)
            except OSError:
                return

    threading.Thread(target=deliver, daemon=True).start()
    free = 0.0
    while True:
        try:
            packet = os.read(source, MTU + 100)
        except OSError:  # the namespace is gone
            return
        now = time.monotonic()
        free = max(free, now) + len(packet) / RATE
        # a queue of 20 ms, as a switch has one
        if free - now < 0.02 + len(packet) / RATE:
            with ready:
                queue.append((free + DELAY, packet))
                ready.notify()
        else:
            free -= len(packet) / RATE


for namespace in ("loram0", "loram1"):
    ip("netns", "del", namespace, check=False)
    ip("netns", "add", namespace)
try:
    a = device("tunloram0", "loram0", "10.77.0.1", "10.77.0.2")
    b = device("tunloram1", "loram1", "10.77.0.2", "10.77.0.1")
    for pair in ((a, b), (b, a)):
        threading.Thread(target=carry, args=pair, daemon=True).start()
    code = subprocess.run(sys.argv[3:]).returncode
finally:
    for namespace in ("loram0", "loram1"):
        ip("netns", "del", namespace)
sys.exit(code)
