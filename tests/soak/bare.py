"""The reference that the daemon's CPU time is compared with: one epoll loop that reads and writes, and nothing else.

`python -m tests.soak.bare FOLDER`: names of the ports come as one JSON line on standard input; stops at the next line.
"""

from __future__ import annotations

import json
import os
import select
import sys
import tty


def main() -> None:
    """Entry point."""
    names = json.loads(sys.stdin.readline())
    poll = select.epoll()
    logs = {}
    for i, name in enumerate(names):
        fd = os.open(name, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        tty.setraw(fd)
        logs[fd] = os.open(f"{sys.argv[1]}/{i}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        poll.register(fd, select.EPOLLIN)
    poll.register(0, select.EPOLLIN)
    print("ready", flush=True)
    while True:
        for fd, _ in poll.poll():
            if fd == 0:
                times = os.times()
                print(json.dumps(times.user + times.system), flush=True)
                return
            data = os.read(fd, 65536)
            os.write(logs[fd], data)


if __name__ == "__main__":
    main()
