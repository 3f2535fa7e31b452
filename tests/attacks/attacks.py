"""What one client may do to the others: each attack, in a form that has an end, and what keeps it from harming others.

An attack is a function of the scene. It returns what there is to tell of it, and raises Broken if it broke a bound that
concerns it alone. Those that hold for all are in `run`.
"""

import contextlib
import itertools
import os
import signal
import socket
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from scene import PATIENCE_S, Broken, servers

MIB = 1024 * 1024
# Most that Redis may keep of which windows there are, whoever names them.
REGISTRY_BYTES = MIB
STALL_MS = 1000
STOP_MS = 300
# While Redis hangs its time-out is what is tried, so it is the default in both forms.
REDIS_HANGS = {"redis__timeout_ms": 50, "upstream__stall_ms": STALL_MS}


@dataclass(frozen=True)
class Attack:
    """An attack, and where and how much it may be felt."""

    name: str
    mechanism: str
    act: callable
    args: tuple = ()
    # Most that Tollgate's memory may grow.
    memory_mib: int = 64
    # Of Tollgate; those of REDIS_HANGS mean that degraded answers are right.
    settings: dict = field(default_factory=dict)
    workers: int = 0
    # Whether Tollgate asks for a password.
    strangers: bool = False
    log_is_full: bool = False
    # What the attack holds Tollgate itself up for.
    held_up_ms: int = 0
    # Most that a script may take longer than any other may: for what Redis does on its own.
    extra_script_ms: int = 0


ATTACKS = []


def attack(name, mechanism, **how):
    """Lists a function among the attacks."""
    return lambda act: ATTACKS.append(Attack(name, mechanism, act, **how)) or act


def threads(count, act):
    """Runs act(number) in so many threads, and returns what they return."""
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(act, range(count)))


def is_over(end):
    return time.monotonic() >= end


def check(key, limit, window, *more):
    return "RL.CHECK", key, limit, window, *more


def ask_all(client, commands, end, depth=500):
    """Sends commands, so many at a time, and yields each with its reply, until all are answered or the time is over."""
    commands = iter(commands)
    while not is_over(end) and (part := list(itertools.islice(commands, depth))):
        client.socket.sendall(b"".join(servers.encode(command) for command in part))
        for command in part:
            try:
                yield command, client.reply()
            except servers.ErrorReply as error:
                yield command, error


def pump(scene, requests, end):
    """Sends the same requests without a pause, and reads whatever comes without a look at it."""

    def read_all():
        with contextlib.suppress(OSError):
            while client.socket.recv(MIB):
                pass

    with scene.connect() as client, contextlib.suppress(OSError):
        reader = threading.Thread(target=read_all)
        reader.start()
        while not is_over(end):
            client.socket.sendall(requests)
        client.socket.shutdown(socket.SHUT_RDWR)
        reader.join()


def send_unread(client, requests, most_bytes, end):
    """Sends the same requests until nothing more is taken, and never reads. Returns how many bytes were sent."""
    # Else the kernel keeps much of what Tollgate should.
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.socket.settimeout(0.3)
    sent = 0
    with contextlib.suppress(OSError):
        while not is_over(end) and sent < most_bytes:
            sent += client.socket.send(requests)
    time.sleep(max(0, end - time.monotonic()))
    return sent


@attack("none", "")
def nothing(scene):
    time.sleep(scene.seconds)


# The lower of two decorators is listed first.
@attack("the same from 4 connections", "the pieces of all resets take turns with checks", args=(4,))
@attack("`RL.RESET` of 500 KB of keys, 400 windows in use", "a reset runs in pieces, others between them", args=(1,))
def resets(scene, connections):
    with scene.connect() as client:
        for _ in ask_all(client, (check("reset", 1_000_000, f"{60_000 + n}ms") for n in range(400)), scene.end(4)):
            pass
    keys = [f"k{number}" for number in range(scene.count(44_000))]
    request, end = servers.encode(("RL.RESET", *keys)), scene.end()

    def reset(_):
        answered = 0
        with scene.connect() as client, contextlib.suppress(TimeoutError, servers.ErrorReply):
            while (left_s := end - time.monotonic()) > 0:
                client.socket.settimeout(left_s)
                client.socket.sendall(request)
                client.reply()
                answered += 1
        return answered

    return f"{sum(threads(connections, reset))} resets of {len(keys):,} keys answered"


@attack("200,000 different windows, then `RL.RESET`", "the registry of windows is bounded", memory_mib=128)
def many_windows(scene):
    windows = (f"{600_000 + number}ms" for number in range(scene.count(200_000)))
    with scene.connect() as client:
        asked = sum(1 for _ in ask_all(client, (check("k", 1, window) for window in windows), scene.end(4)))
        client.command("RL.RESET", "k")
    # The logs are the attacker's own, and expire.
    kept = scene.redis.command("MEMORY", "USAGE", "rl:windows") or 0
    told = f"{asked:,} windows, rl:windows takes {kept / 1e6:.1f} MB"
    if kept > REGISTRY_BYTES:
        raise Broken(f"{told}, of at most {REGISTRY_BYTES / 1e6:.1f}")
    return told


@attack("the same as fast as possible", "a bound for all checks of a script together", args=(None,))
@attack("checks denied by 600 heavy entries, 340/s", "a script looks at a bounded number of entries", args=(340,))
def weighty_denials(scene, rate):
    costs = [2 + number * 7 % 999 for number in range(600)]
    logs, left = [f"log:{number}" for number in range(scene.count(20))], 500
    ask = lambda log, cost: check(log, sum(costs) + left, "1h", "COST", cost)
    with scene.connect() as client:
        for _, reply in ask_all(client, (ask(log, cost) for log in logs for cost in costs), scene.end(4)):
            if isinstance(reply, Exception) or reply[0] != 1:
                raise Broken(f"an entry that fits was answered {reply}")
        # Each needs other entries to expire than the one before, so that no denial is known beforehand.
        depths = itertools.cycle(itertools.accumulate(costs))
        denials = (ask(log, left + depth) for depth in depths for log in logs)
        began, asked = time.monotonic(), 0
        for _, reply in ask_all(client, denials, scene.end(), 1 if rate else 64):
            asked += 1
            if isinstance(reply, Exception) or reply[0] != 0:
                raise Broken(f"a check that does not fit was answered {reply}")
            time.sleep(max(0, began + asked / rate - time.monotonic()) if rate else 0)
    return f"{asked / scene.seconds:,.0f}/s"


@attack("64 logs at a time that outgrow Redis's compact form", "64 windows a script", extra_script_ms=6)
def outgrowing(scene):
    # Redis gives a sorted set of more than 128 entries (zset-max-listpack-entries) another form, all at once.
    names = (f"log:{number}:{place}" for number in range(scene.count(40)) for place in range(64))
    groups = iter(lambda: list(itertools.islice(names, 64)), [])
    denied = 0
    with scene.connect() as client:
        for group in groups:
            asked = (check(log, 1000, "1h", "COST", 1 + turn % 2) for turn in range(140) for log in group)
            denied += sum(1 for _, reply in ask_all(client, asked, scene.end(4), 64) if reply[0] != 1)
    if denied:
        raise Broken(f"{denied} checks that fit were denied")
    return f"{scene.count(40) * 64:,} logs"


@attack("16 strangers who do not read", "64 KiB of unread replies each", memory_mib=16, strangers=True)
def strangers(scene):
    end = scene.end()

    def send(_):
        with servers.Client(scene.tollgate.port) as client:
            return send_unread(client, b"x\r\n" * 20_000, 64 * MIB, end)

    return f"{sum(threads(16, send)) / 1e6:.1f} MB of garbage taken"


@attack(
    "16 clients who do not read, some behind a `BLPOP`",
    "64 MiB of unread replies each, 256 MiB for all; what Redis sends waits there",
    memory_mib=320,
    strangers=True,
)
def unread_replies(scene):
    scene.redis.command("SET", "large", "x" * MIB)
    end, help_me, large = scene.end(), servers.encode(("RL.HELP",)) * 1_000, servers.encode(("GET", "large"))
    kinds = (
        (b"", help_me, 16 * MIB),
        (servers.encode(("BLPOP", "nothing", 0)), help_me, 16 * MIB),
        (b"", servers.encode(("INFO", "tollgate")) * 1_000, 16 * MIB),
        # What Redis makes it keeps, without a bound for such clients: so there is one for the attack.
        (b"", large, 30 * len(large)),
    )

    def send(number):
        in_front, requests, most_bytes = kinds[number % len(kinds)]
        with scene.connect() as client:
            client.socket.sendall(in_front)
            return send_unread(client, requests, most_bytes, end)

    return f"{sum(threads(16, send)) / 1e6:.1f} MB of requests taken"


@attack("an endless pipeline, one worker", "a bounded number of requests a turn", memory_mib=96, workers=1)
def endless_pipeline(scene):
    checks = servers.encode(check("denied", 5, "1h")) * 50 + servers.encode(check("allowed", 1_000_000_000, "1h")) * 50
    pump(scene, (checks + servers.encode(("RL.HELP",)) + b"PING\r\n") * 20, scene.end())


@attack("200 requests of 980 KB, dripping 3.8 KB/s", "what was read is not read again", memory_mib=256)
def slow_lorises(scene):
    count, key = scene.count(200), b"$1\r\nk\r\n"
    request = b"*200000\r\n$8\r\nRL.RESET\r\n" + key * (980_000 // len(key))
    with contextlib.ExitStack() as stack:
        lorises = [stack.enter_context(scene.connect()) for _ in range(count)]
        for loris in lorises:
            loris.socket.sendall(request)
        dripped, began, end = 0, time.monotonic(), scene.end()
        while not is_over(end):
            # Each gets the next byte of a key in its turn.
            place = dripped // count % len(key)
            lorises[dripped % count].socket.sendall(key[place : place + 1])
            dripped += 1
            time.sleep(max(0, began + dripped / 3_800 - time.monotonic()))
    return f"{count} requests, {dripped / scene.seconds / 1000:.1f} KB/s"


@attack("logs spoilt through `ZADD`, `SET`, `HSET`", "what is no log is an error of its key's alone")
def sabotage(scene):
    now_us = int(time.time() * 1e6)
    weights = ("", "abc", "nan", "inf", "-5", "1e400", "0.5", "9" * 400)
    spoils = [("ZADD", f"rl:{{weight{n}}}:60000", -now_us, f"id:{text}", 7, "t") for n, text in enumerate(weights)]
    spoils += [("ZADD", "rl:{total}:60000", "+inf", "t"), ("ZADD", "rl:{total}:60001", "-inf", "t")]
    spoils += [("ZADD", "rl:{future}:60000", -now_us * 1000, "id", "1e300", "id2"), ("SET", "rl:windows", "x")]
    spoils += [("SET", "rl:{text}:60000", "x"), ("HSET", "rl:{hash}:60000", "a", "b")]
    commands = list(spoils)
    for key in ("total", "future", "text", "hash", *(f"weight{number}" for number in range(len(weights)))):
        quotas = (key, 10, "60000ms", 10, "60001ms")
        commands += [("RL.CHECK", *quotas), ("RL.CHECK", *quotas, "COST", 3), ("RL.PEEK", *quotas), ("RL.RESET", key)]
    with scene.connect() as client:
        # Again and again, since RL.RESET forgets what is spoilt.
        return f"{sum(1 for _ in ask_all(client, itertools.cycle(commands), scene.end())):,} commands"


@attack(
    "standard error that nobody reads, `log.level = \"trace\"`",
    "a thread of its own writes the log; 1 MiB of lines waits, the rest is dropped",
    settings={"log__level": "trace", "log__format": "json"},
    log_is_full=True,
)
def full_log(scene):
    dropped = lambda: int(scene.info()["log_lines_dropped"])

    def come_and_go(is_enough):
        while not is_enough():
            # Reset in the midst of a request, which is a line of log.
            with socket.create_connection(("127.0.0.1", scene.tollgate.port)) as connection:
                connection.sendall(b"PING")
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    filled_by = time.monotonic() + PATIENCE_S
    threads(4, lambda _: come_and_go(lambda: is_over(filled_by) or dropped() > 0))
    end = scene.end()
    threads(4, lambda _: come_and_go(lambda: is_over(end)))
    if dropped() == 0:
        raise Broken("no line was dropped, so this log never was full")
    return f"{dropped():,} lines dropped"


@contextlib.contextmanager
def hanging(scene):
    """Has Redis hang, until Tollgate has noticed and then for the context; waits until it has noticed the end."""
    state = lambda: scene.info()["breaker_state"]
    os.kill(scene.redis.process.pid, signal.SIGSTOP)
    try:
        scene.wait_until(lambda: state() != "closed", "the breaker is to be open")
        yield
    finally:
        os.kill(scene.redis.process.pid, signal.SIGCONT)
    scene.wait_until(lambda: state() == "closed", "the breaker is to be closed")


@attack(
    "an outage with more keys than `fallback.max_keys`",
    "a bound on buckets and records, and on what is admitted without one",
    settings=REDIS_HANGS | {"fallback__max_keys": 1_000},
)
def outage_of_many_keys(scene):
    # Half of the limit is what the fallback hands out; in so short a time nothing is added to it.
    limit, most, admitted = 10, 5, {}
    # Its windows are so far apart that its records do not join.
    far_apart = check("far apart", 1_000_000, "1ms", limit, "366d")
    commands = [check(f"many:{number}", limit, "1h") if number % 50 else far_apart for number in range(2_000)]
    with hanging(scene), scene.connect() as client:
        for command, reply in ask_all(client, commands * scene.count(100), scene.end(4)):
            admitted[command[1]] = admitted.get(command[1], 0) + reply[0]
    scene.wait_until(lambda: scene.info()["fallback_unwritten"] == "0", "all that was admitted is to be written")
    key = max(admitted, key=admitted.get)
    told = f"at most {admitted[key]} of {limit} admitted for a key"
    if admitted[key] > most:
        above = sum(count > most for count in admitted.values())
        raise Broken(f"{told} ({key}), where {most} are right; more than that for {above:,} of {len(admitted):,} keys")
    return told


@attack("passwords guessed on 50 connections", "one hash a guess; from the third on it waits", strangers=True)
def guesses(scene):
    end = scene.end()

    def guess(number):
        made = 0
        while not is_over(end):
            # What follows on the same connection would be slowed down.
            with servers.Client(scene.tollgate.port) as client:
                for _, reply in ask_all(client, [("AUTH", f"{number} {made}"), ("AUTH", f"{number}")], end, depth=1):
                    made += 1
                    if not isinstance(reply, servers.ErrorReply):
                        raise Broken("a guess was right")
        return made

    return f"{sum(threads(50, guess)) / scene.seconds:,.0f} guesses/s"


@attack(
    "`RL.CHECK` behind a `GET` while Redis hangs",
    "what Redis owes for `upstream.stall_ms` is answered without it",
    settings=REDIS_HANGS,
)
def behind_a_get(scene):
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(scene.connect()) for _ in range(scene.count(50))]
        for client in clients:
            client.command("GET", "k")
        with hanging(scene):
            began = time.monotonic()
            for client in clients:
                client.socket.sendall(servers.encode(("GET", "k")) + servers.encode(check("k", 10, 60)))
            for client in clients:
                with contextlib.suppress(servers.ErrorReply):
                    raise Broken(f"GET was answered {client.reply()!r}")
                if client.reply()[5] != 1:
                    raise Broken("a check that Redis did not answer was not degraded")
            waited_ms = (time.monotonic() - began) * 1000
    if waited_ms > 1.5 * STALL_MS:
        raise Broken(f"answered after {waited_ms:.0f} ms, of at most {1.5 * STALL_MS:.0f}")
    return f"answered after {waited_ms:.0f} ms"


@attack(
    f"Tollgate stopped for {STOP_MS} ms under load",
    "what has come is in time, however late it is read; what Tollgate is late with is no failure of Redis's",
    held_up_ms=STOP_MS,
)
def stopped_tollgate(scene):
    end, requests = scene.end(), servers.encode(check("k", 1_000_000_000, "1h")) * 100
    with ThreadPoolExecutor(4) as pool:
        loads = [pool.submit(pump, scene, requests, end) for _ in range(4)]
        while not is_over(end - 2 * STOP_MS / 1000):
            for number in (signal.SIGSTOP, signal.SIGCONT):
                time.sleep(STOP_MS / 1000)
                os.kill(scene.tollgate.process.pid, number)
        for load in loads:
            load.result()
