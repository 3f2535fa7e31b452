"""Redis and Tollgate, started for a test on free ports, and stopped after it."""

import contextlib
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))
from ignored import tell_ignored

ROOT = Path(__file__).resolve().parent.parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()

# Where a Tollgate listens that is not started again.
ANY_PORT = ("--listen", "127.0.0.1:0")
START_SECONDS = 10
# Long enough for a client to see exact answers between two outages; the breaker's probe must fall into it.
FLAP_UP_SECONDS = 0.6
FLAP_DOWN_SECONDS = 0.4


class Redis:
    """A Redis server on a port of its own, where it is started again too. It saves nothing, unless `settings` do."""

    def __init__(self, folder, *settings):
        self.folder = folder
        self.settings = settings
        self.port = free_port()
        self.process = None

    def start(self):
        log = self.folder / "redis.log"
        settings = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder), "--logfile", str(log)]
        self.process = subprocess.Popen(
            [redis_server(), *settings, "--save", "", "--appendonly", "no", *self.settings], stdin=subprocess.DEVNULL
        )
        wait_until(self.answers, lambda: f"redis-server did not start:\n{read(log)}")

    def answers(self):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1) as client:
            client.sendall(b"PING\r\n")
            return client.recv(64).startswith(b"+PONG")
        return False

    def stop(self):
        if self.process:
            self.process.kill()
            self.process.wait()


class Cluster:
    """A Redis Cluster of three nodes without replicas."""

    def __init__(self, folder):
        folders = [folder / f"node{number}" for number in range(3)]
        settings = ("--cluster-enabled", "yes", "--cluster-port")
        self.nodes = [Redis(each, *settings, str(free_port())) for each in folders]

    def start(self):
        for node in self.nodes:
            node.folder.mkdir()
            node.start()
        cli = find("redis-cli", "Debian: redis-tools, Fedora: redis")
        addresses = [f"127.0.0.1:{node.port}" for node in self.nodes]
        create = subprocess.run(
            [cli, "--cluster", "create", *addresses, "--cluster-yes"], capture_output=True, text=True, check=False
        )
        if create.returncode:
            sys.exit(f"cannot make a cluster:\n{create.stdout}{create.stderr}")

        def is_ok(node):
            info = subprocess.run([cli, "-p", str(node.port), "CLUSTER", "INFO"], capture_output=True, check=False)
            return b"cluster_state:ok" in info.stdout

        wait_until(lambda: all(map(is_ok, self.nodes)), lambda: "the nodes do not agree")

    def stop(self):
        for node in self.nodes:
            node.stop()


@contextlib.contextmanager
def flapping(redis):
    """Kills the server and starts it again, over and over. It has stopped doing so when the context ends."""
    stop = threading.Event()

    def flap():
        while not stop.wait(FLAP_UP_SECONDS):
            redis.stop()
            stop.wait(FLAP_DOWN_SECONDS)
            redis.start()

    thread = threading.Thread(target=flap)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def start_tollgate(flags, log, stack, **settings):
    """Starts Tollgate with settings by environment, and returns its process and the port that it says it listens on."""
    binary = os.environ.get("TOLLGATE_BIN", TARGET / "debug" / "tollgate")
    if not Path(binary).exists():
        sys.exit(f"{binary} is not there: run cargo build first")
    # Settings of whoever runs this must not reach the Tollgate under test.
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("REDIS_", "TOLLGATE_"))}
    environ.update(settings)
    with log.open("wb") as output:
        process = subprocess.Popen([binary, *flags], env=environ, stderr=output)
    stack.callback(stop_tollgate, process, log)
    address = re.compile(r"listening.* addr=127\.0\.0\.1:(\d+)")
    wait_until(lambda: address.search(read(log)), lambda: f"tollgate did not start:\n{read(log)}")
    return process, int(address.search(read(log))[1])


def stop_tollgate(process, log):
    if process.poll() is not None:
        with log.open("a") as output:
            print(f"tollgate had ended with {process.returncode}", file=output)
    process.kill()
    process.wait()


def bad_lines(log, store):
    """What should not be in Tollgate's log. It may warn of a store that it cannot reach."""
    bad = "panicked|had ended" if store in ("down", "flapping") else r"panicked|had ended|^\S+ +(WARN|ERROR) "
    return [line for line in read(log).splitlines() if re.search(bad, line)]


def read(path):
    return path.read_text(errors="replace") if path.exists() else ""


def free_port():
    """A port below those that outgoing connections take: one of these might be taken while its server is down."""
    while True:
        port = random.randrange(12_000, 32_000)
        with contextlib.suppress(OSError), socket.socket() as taken:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            taken.bind(("127.0.0.1", port))
            return port


def wait_until(condition, message):
    deadline = time.monotonic() + START_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            sys.exit(message())
        time.sleep(0.01)


def redis_server():
    named = os.environ.get("TOLLGATE_TEST_REDIS_SERVER")
    return named or shutil.which("redis-server") or find("valkey-server", "Debian: redis-server, Fedora: redis")


def find(program, where):
    path = shutil.which(program)
    if not path:
        sys.exit(f"{program} is needed ({where})")
    return path
