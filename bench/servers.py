"""The programs that are measured: built, started on free ports in a folder of their own, and stopped."""

import contextlib
import itertools
import os
import re
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
from ignored import tell_ignored

ROOT = Path(__file__).resolve().parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
THROTTLECRAB = TARGET / "bench-tools" / "bin" / "throttlecrab-server"
# By this name somebody who has built redis-cell says where the module is.
REDIS_CELL = "TOLLGATE_BENCH_REDIS_CELL"
MEMTIER = "TOLLGATE_BENCH_MEMTIER"
PATIENCE_S = 20
CLUSTER_NODES = 3
SLOTS = 16_384

# One thread, as the Redis behind has one; the rest is what a TCP proxy needs not to give up on a benchmark.
HAPROXY_CONFIG = """\
global
    nbthread 1
    maxconn 5000
    {more}
defaults
    mode tcp
    option tcp-smart-accept
    timeout connect 5s
    timeout client 1h
    timeout server 1h
listen redis
    bind 127.0.0.1:{port}
    server redis 127.0.0.1:{redis_port}
"""


@dataclass
class Server:
    """A running program that listens on 127.0.0.1."""

    name: str
    port: int
    process: subprocess.Popen
    log: Path
    # The Redis servers that carry out what it is asked: itself, if it is one.
    behind: list = field(default_factory=list)

    def processor_s(self):
        """Processor time that it has taken so far, in seconds."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident_bytes(self):
        """Resident memory, as the kernel tells it now."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise RuntimeError(f"no VmRSS of {self.name}")

    def command(self, *args):
        """The reply to one command, on a connection of its own."""
        with Client(self.port) as client:
            return client.command(*args)

    def info(self):
        """The fields of INFO's section about Tollgate."""
        text = self.command("INFO", "tollgate")
        return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)


class Failed(Exception):
    """Something that makes going on pointless. The text is for whoever started the benchmark."""


class ErrorReply(Exception):
    """An error that a server replied."""


class Client:
    """A connection that asks one command after another."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.reader = self.socket.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.reader.close()
        self.socket.close()

    def command(self, *args):
        self.socket.sendall(encode(args))
        return self.reply()

    def reply(self):
        line = self.reader.readline()
        if not line:
            raise ConnectionError("the server closed the connection")
        kind, text = line[:1], line[1:-2].decode()
        if kind == b"+":
            return text
        if kind == b"-":
            raise ErrorReply(text)
        if kind == b":":
            return int(text)
        if kind == b"$":
            return None if text == "-1" else self.reader.read(int(text) + 2)[:-2].decode()
        if kind == b"*":
            return [self.reply() for _ in range(int(text))]
        raise RuntimeError(f"unexpected reply {line!r}")


def encode(args):
    """A command as a request."""
    words = [str(arg).encode() for arg in args]
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


def pipeline(port, commands, depth=1000):
    """Sends many commands, so many at a time, and reads all replies."""
    commands = iter(commands)
    with Client(port) as client:
        while part := list(itertools.islice(commands, depth)):
            client.socket.sendall(b"".join(encode(command) for command in part))
            for _ in part:
                client.reply()


def raise_file_limit():
    """Lets this process, and those that it starts, open as many files as the system permits it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def build():
    """Builds release: the program, and the load generator."""
    for target in (["--bin", "tollgate"], ["--example", "load"]):
        command = ["cargo", "build", "--release", "--locked", "--quiet", *target]
        if subprocess.run(command, cwd=ROOT, check=False).returncode:
            raise Failed(f"`{' '.join(command)}` failed")


def program(name):
    """The built program of this name."""
    return TARGET / "release" / ("examples" if name == "load" else "") / name


def need(name, package):
    """The installed program of this name; Debian's package is installed when run by root there."""
    if found := shutil.which(name):
        return found
    if shutil.which("apt-get") and os.geteuid() == 0:
        print(f"installing {package}", file=sys.stderr)
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "update", "-qq"], stdout=sys.stderr, check=True)
        install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", package]
        subprocess.run(install, stdout=sys.stderr, env=environment, check=True)
        return need(name, package)
    raise Failed(f"{name} is needed: install {package}")


def redis_cell():
    """The module redis-cell, if whoever measures has built it."""
    return named_by(REDIS_CELL)


def memtier():
    """The program memtier_benchmark, where it is; Debian has no package of it."""
    return named_by(MEMTIER) or shutil.which("memtier_benchmark")


def named_by(variable):
    """The file that a variable of the environment names."""
    if not (named := os.environ.get(variable)):
        return None
    path = Path(named).resolve()
    if not path.is_file():
        raise Failed(f"{variable} is {named}, where no file is")
    return path


def free_port():
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def running(start, *args, **options):
    """What `start` starts, stopped at the end, with its folder removed."""
    folder = Path(tempfile.mkdtemp(prefix="tollgate-bench-"))
    server = None
    try:
        server = start(folder, *args, **options)
        yield server
    finally:
        if server:
            stop(server.process)
        shutil.rmtree(folder, ignore_errors=True)


def stop(process):
    """Ends a process for certain."""
    process.terminate()
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def start_redis(folder, *options):
    """A Redis that saves nothing."""
    port = free_port()
    command = [need("redis-server", "redis-server"), "--port", port, "--bind", "127.0.0.1", "--dir", folder]
    command += ["--save", "", "--appendonly", "no", *options]
    return launch("redis-server", folder, command, port)


def start_cluster(stack):
    """A Redis Cluster of three nodes without replicas; all of them are running once it serves every slot."""
    nodes = []
    for _ in range(CLUSTER_NODES):
        # By default a node's second port is 10,000 above its first, which may be none.
        options = ["--cluster-enabled", "yes", "--cluster-port", free_port()]
        nodes.append(stack.enter_context(running(start_redis, *options)))
    for number, node in enumerate(nodes):
        node.command("CLUSTER", "ADDSLOTS", *range(number * SLOTS // len(nodes), (number + 1) * SLOTS // len(nodes)))
        node.command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        _, bus_port = node.command("CONFIG", "GET", "cluster-port")
        nodes[0].command("CLUSTER", "MEET", "127.0.0.1", node.port, bus_port)
    is_whole = lambda node: {"cluster_state:ok", f"cluster_known_nodes:{len(nodes)}"} <= {
        *node.command("CLUSTER", "INFO").splitlines()
    }
    for node in nodes:
        wait_until(node, lambda node=node: is_whole(node), "finds its cluster whole")
    return nodes


def start_tollgate(folder, redis_port=None, embedded=False, workers=0, is_cluster=False, **settings):
    """Tollgate as configured by default but for `settings`: redis__timeout_ms=20 is TOLLGATE_REDIS__TIMEOUT_MS=20."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("REDIS_", "TOLLGATE_"))
    }
    environment |= {f"TOLLGATE_{name.upper()}": str(value) for name, value in settings.items()}
    port = free_port()
    command = [program("tollgate"), "--listen", f"127.0.0.1:{port}", "--workers", workers]
    scheme = "redis+cluster" if is_cluster else "redis"
    command += ["--embedded"] if embedded else ["--redis", f"{scheme}://127.0.0.1:{redis_port}"]
    # The first checks must not find Redis, or a node of its cluster, still being dialed.
    keys = [f"ready{number}" for number in range(20 if is_cluster else 1)]
    is_ready = lambda server: all(server.command("RL.PEEK", key, 1, 60)[5] == 0 for key in keys)
    is_exact = lambda server: embedded or not is_up(redis_port) or is_ready(server)
    return launch("tollgate", folder, command, port, environment, is_exact)


def start_haproxy(folder, redis_port, more=""):
    """HAProxy in TCP mode, in one thread, before a Redis; `more` is a line for its global section."""
    port = free_port()
    config = folder / "haproxy.cfg"
    config.write_text(HAPROXY_CONFIG.format(port=port, redis_port=redis_port, more=more))
    return launch("haproxy", folder, [need("haproxy", "haproxy"), "-db", "-f", config], port)


def start_throttlecrab(folder):
    """throttlecrab-server with its RESP listener, and all else by default."""
    port = free_port()
    command = [THROTTLECRAB, "--redis", "--redis-host", "127.0.0.1", "--redis-port", port, "--log-level", "error"]
    return launch("throttlecrab-server", folder, command, port)


def install_throttlecrab():
    """Builds throttlecrab-server beside the project's own build."""
    need("protoc", "protobuf-compiler")
    folder = THROTTLECRAB.parent.parent
    subprocess.run(["cargo", "install", "--locked", "--quiet", "--root", folder, "throttlecrab-server"], check=True)


def launch(name, folder, command, port, environment=None, is_ready=lambda _: True):
    """Starts a program and waits until it listens on `port` and is ready."""
    log = folder / f"{name}.log"
    with log.open("wb") as output:
        command = [str(word) for word in command]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment)
    server = Server(name, port, process, log)
    try:
        wait_until(server, lambda: is_up(port), "listens")
        wait_until(server, lambda: is_ready(server), "is ready")
    except BaseException:
        stop(process)
        raise
    return server


def wait_until(server, condition, what):
    """Waits until a server is as wanted."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if server.process.poll() is not None or time.monotonic() > deadline:
            raise Failed(f"{server.name} never {what}; its log:\n{server.log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.005)


def is_up(port):
    """Whether anybody listens there."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def versions():
    """What the figures depend on."""
    found = lambda text, pattern: match[1] if (match := re.search(pattern, text)) else "unknown"
    told = lambda *command: subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False).stdout
    changed = bool(told("git", "status", "--porcelain", "--", "src", "lua", "Cargo.toml", "Cargo.lock").strip())
    commit = told("git", "rev-parse", "--short", "HEAD").strip() or "unknown"
    return {
        "commit": f"{commit} and changes" if changed else commit,
        "cpu": found(Path("/proc/cpuinfo").read_text(), r"model name\s*: (.*)"),
        "cores": os.cpu_count(),
        "kernel": os.uname().release,
        "redis": found(told(need("redis-server", "redis-server"), "--version"), r"v=(\S+)"),
        "haproxy": found(told("haproxy", "-v"), r"version (\S+)") if shutil.which("haproxy") else "not installed",
        "rustc": found(told("rustc", "--version"), r"rustc (\S+)"),
    }
