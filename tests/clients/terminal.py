"""redis-cli at a terminal: only there does it ask for COMMAND DOCS, and complete and hint what is typed."""

import contextlib
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time

WAIT_SECONDS = 10
# The line editor draws a line anew at each key, with escape sequences in between.
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """An interactive redis-cli."""

    def __init__(self, master):
        self.master = master
        self.written = ""
        # How much of what was written, less the escape sequences, has been waited for.
        self.seen = 0

    def type(self, text):
        os.write(self.master, text.encode())

    def wait_for(self, text):
        """Waits for the text to be written after what was waited for before, and returns all in between, with it."""
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            screen = ESCAPES.sub("", self.written)
            found = screen.find(text, self.seen)
            if found >= 0:
                begin, self.seen = self.seen, found + len(text)
                return screen[begin : self.seen]
            left = deadline - time.monotonic()
            ready = left > 0 and select.select([self.master], [], [], left)[0]
            assert ready, f"{text!r} did not come, but {screen[self.seen:][-300:]!r}"
            self.written += os.read(self.master, 65536).decode(errors="replace")


@contextlib.contextmanager
def redis_cli(*args):
    """An interactive redis-cli that keeps no history, and is killed when the context ends."""
    master, slave = pty.openpty()
    # Hints are cut at the right edge.
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 200, 0, 0))
    environ = dict(os.environ, TERM="xterm", REDISCLI_HISTFILE="/dev/null", REDISCLI_RCFILE="/dev/null")
    process = subprocess.Popen(
        ["redis-cli", *args], stdin=slave, stdout=slave, stderr=slave, env=environ, start_new_session=True
    )
    os.close(slave)
    try:
        yield Terminal(master)
    finally:
        process.kill()
        process.wait()
        os.close(master)
