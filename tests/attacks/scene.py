"""Where an attack takes place: a Redis, a Tollgate before it, and two victims that time how long they wait.

The attacker and each victim are processes of their own. The attacker leaves the processor to all others; victims and,
before them, Redis take it from all others, if they may: elsewhere each has a machine of its own. And Redis times its
scripts by the clock, so that one which is interrupted seems long.
"""

import contextlib
import math
import multiprocessing
import os
import re
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))
import servers

FORK = multiprocessing.get_context("fork")
PASSWORD = "correct horse"
# Between a victim's questions, so that they are no load of their own.
PAUSE_S = 0.001
# Longest that a victim waits for an answer, and anybody for a change.
PATIENCE_S = 10
# Redis notes scripts that run longer. What the longest of others took does not matter.
SLOW_US = 100
LONGEST_SCRIPT = f"""\
local longest_us = {SLOW_US}
for _, entry in ipairs(redis.call('SLOWLOG', 'GET', '-1')) do
  if string.find(string.upper(entry[4][1]), '^EVAL') then
    longest_us = math.max(longest_us, entry[3])
  end
end
return longest_us
"""


class Broken(Exception):
    """A bound was broken. The text says which."""


@dataclass
class Waits:
    """How a victim fared. Wrong are answers that are neither right nor marked as degraded."""

    asked: int = 0
    longest_ms: float = 0
    degraded: int = 0
    wrong: int = 0


@dataclass
class Outcome:
    """What an attack did to others, and what it says of itself and of bounds of its own."""

    checking: Waits
    passing: Waits
    grown_bytes: int
    script_ms: float
    breaker: str
    told: str
    broken: str


@dataclass(frozen=True)
class Scene:
    """The servers, and how much of an attack there is to be."""

    redis: servers.Server
    tollgate: servers.Server
    password: str | None
    seconds: float = 0
    # Of the requests, keys or connections of the full form.
    share: float = 0

    def connect(self):
        """A client that has logged in."""
        client = servers.Client(self.tollgate.port)
        if self.password:
            client.command("AUTH", self.password)
        return client

    def info(self):
        """The fields of INFO's section about Tollgate."""
        with self.connect() as client:
            return dict(line.split(":", 1) for line in client.command("INFO", "tollgate").splitlines() if ":" in line)

    def end(self, factor=1):
        """When what begins now is to be over, on the monotonic clock."""
        return time.monotonic() + factor * self.seconds

    def count(self, full):
        """How many there are to be, of the full form's number."""
        return round(full * self.share)

    def wait_until(self, condition, what):
        """Waits until it is so."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            if time.monotonic() > deadline:
                raise Broken(f"{what} within {PATIENCE_S} s, and is not")
            time.sleep(0.01)


def play(attack, binary, form):
    """Has the attack happen to servers started for it, and returns its outcome."""
    password = PASSWORD if attack.strangers else None
    with contextlib.ExitStack() as stack:
        options = ("--slowlog-log-slower-than", SLOW_US, "--slowlog-max-len", 1_000_000)
        redis = stack.enter_context(servers.running(servers.start_redis, *options))
        with contextlib.suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, redis.process.pid, -20)
        redis.command("SET", "victim", "safe")
        settings = {"redis__timeout_ms": form.timeout_ms} | attack.settings
        tollgate = stack.enter_context(servers.running(start_tollgate, redis, binary, attack, settings, password))
        scene = Scene(redis, tollgate, password, form.seconds, form.share)
        before = memory_bytes(tollgate, "VmRSS")
        stop = FORK.Event()
        victims = [stack.enter_context(process(suffer, scene, questions, stop)) for questions in (checks, passed)]
        time.sleep(0.1)
        attacker = stack.enter_context(process(strike, scene, attack))
        told, broken = answer_of(attacker, 5 * form.seconds + 3 * PATIENCE_S) or ("", "it did not end")
        stop.set()
        waits = [answer_of(victim, PATIENCE_S) or Waits(0, math.inf) for victim in victims]
        grown = memory_bytes(tollgate, "VmHWM") - before
        return Outcome(*waits, grown, longest_script_ms(redis), scene.info()["breaker_state"], told, broken)


def start_tollgate(folder, redis, binary, attack, settings, password):
    """Tollgate with these settings and, for an attack on its log, a log that nobody reads."""
    settings = settings | ({"auth__mode": "password", "auth__password": password} if password else {})
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("REDIS_", "TOLLGATE_"))}
    environment |= {f"TOLLGATE_{name.upper()}": str(value) for name, value in settings.items()}
    port = servers.free_port()
    command = [binary, "--listen", f"127.0.0.1:{port}", "--workers", attack.workers]
    command += ["--redis", f"127.0.0.1:{redis.port}"]
    if attack.log_is_full:
        os.mkfifo(folder / "log")
        # Open for reading too, so that writing to it is no error.
        command = ["sh", "-c", 'exec "$@" 2<>"$0"', folder / "log", *command]

    def is_exact(server):
        with Scene(redis, server, password).connect() as client:
            return client.command("RL.PEEK", "ready", 1, 60)[5] == 0

    return servers.launch("tollgate", folder, command, port, environment, is_exact)


@contextlib.contextmanager
def process(act, *args):
    """Runs act(*args) in a process that is gone at the end; yields where what it returns can be read."""
    told, tell = FORK.Pipe(duplex=False)
    child = FORK.Process(target=lambda: tell.send(act(*args)))
    child.start()
    # The child alone has it now, so that reading ends when the child does.
    tell.close()
    try:
        yield told
    finally:
        child.kill()
        child.join()


def answer_of(told, patience_s):
    """What a process returned; None if it did not in time, or ended without."""
    with contextlib.suppress(EOFError):
        return told.recv() if told.poll(patience_s) else None
    return None


def strike(scene, attack):
    """The attacker: returns what there is to tell and, if a bound was broken, which."""
    os.nice(10)
    try:
        return attack.act(scene, *attack.args) or "", ""
    except Broken as broken:
        return "", str(broken)
    except (OSError, servers.ErrorReply) as error:
        return "", f"the attacker met {error!r}"
    except Exception:
        return "", traceback.format_exc(limit=-3)


def suffer(scene, questions, stop):
    """A victim: asks one question after another until told to stop, and times each answer."""
    with contextlib.suppress(PermissionError):
        os.nice(-10)
    waits, client = Waits(), scene.connect()
    client.socket.settimeout(PATIENCE_S)
    for command, expected in questions():
        answer, asked = None, time.monotonic()
        try:
            answer = client.command(*command)
        except servers.ErrorReply:
            pass
        except OSError:
            # Closed, or never answered: nothing can follow.
            stop.set()
        waits.longest_ms = max(waits.longest_ms, (time.monotonic() - asked) * 1000)
        waits.asked += 1
        is_decision = isinstance(answer, list)
        if is_decision and answer[5] == 1:
            waits.degraded += 1
        elif (answer[:4] if is_decision else answer) != expected:
            waits.wrong += 1
        if stop.is_set():
            return waits
        time.sleep(PAUSE_S)


def checks():
    """Endless checks of new keys, with what the exact answers begin with."""
    number = 0
    while number := number + 1:
        yield ("RL.CHECK", f"victim:{number}", 1_000_000, 60), [1, 1_000_000, 999_999, 0]


def passed():
    """Endless commands that Redis answers, and others that keep their place among them."""
    while True:
        yield ("GET", "victim"), "safe"
        yield ("PING",), "PONG"


def memory_bytes(server, field):
    """Resident memory: at its peak (VmHWM), or now (VmRSS)."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(re.search(rf"{field}:\s+(\d+) kB", status)[1]) * 1024


def longest_script_ms(redis):
    """Of all scripts that Redis has run; infinite while it runs one that does not end."""
    try:
        return redis.command("EVAL", LONGEST_SCRIPT, 0) / 1000
    except (OSError, servers.ErrorReply):
        return math.inf
