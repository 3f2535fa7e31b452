"""What is measured beside what: the rows of the tables."""

import hashlib
from dataclasses import dataclass, replace

import servers
from servers import running

KEYS = 10_000

# The sliding-window log as it is commonly written: KEYS the key; ARGV limit, window in ms, something random that keeps
# members made in one microsecond apart. It answers with two integers, Tollgate with six.
PLAIN_SCRIPT = """\
local time = redis.call('TIME')
local now_us = time[1] * 1000000 + time[2]
local limit, window_ms = tonumber(ARGV[1]), tonumber(ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now_us - window_ms * 1000)
local used = redis.call('ZCARD', KEYS[1])
if used >= limit then
  return { 0, 0 }
end
local now = string.format('%.0f', now_us)
redis.call('ZADD', KEYS[1], now, now .. ':' .. ARGV[3])
redis.call('PEXPIRE', KEYS[1], window_ms)
return { 1, limit - used - 1 }
"""
PLAIN_SHA = hashlib.sha1(PLAIN_SCRIPT.encode()).hexdigest()


@dataclass(frozen=True)
class Work:
    """One command, and how a right reply to it begins and ends."""

    name: str
    command: tuple
    begins: str
    ends: str = ""
    # What is asked before, on a connection of its own.
    before: tuple = ()


RANDOM_KEY = "key:__rand_int__"
ALL_KEYS = [f"key:{number:012}" for number in range(KEYS)]
ALLOWED, DENIED, DEGRADED = ("*6\r\n:1\r\n", ":0\r\n"), ("*6\r\n:0\r\n", ":0\r\n"), ("*6\r\n:1\r\n", ":1\r\n")
VALUE = "xxx"

CHECK = Work("RL.CHECK allowed, 10,000 keys", ("RL.CHECK", RANDOM_KEY, 1_000_000, 60), *ALLOWED)
CHECK_HOT = Work("RL.CHECK allowed, one hot key", ("RL.CHECK", "hot", 1_000_000_000, 60), *ALLOWED)
CHECK_EMBEDDED = replace(CHECK, name="RL.CHECK allowed, embedded, 10,000 keys")
# An hour's window: the denial is certain throughout, and Redis is asked again when the denial cache has held it as
# long as it may.
ONE_AN_HOUR = ("RL.CHECK", "hot", 1, "1h")
CHECK_DENIED = Work("RL.CHECK denied, one hot key", ONE_AN_HOUR, *DENIED, before=(ONE_AN_HOUR,))
# None of the overrides is of a key that is asked for, so that each is looked for in vain, as exact and by its beginning.
OVERRIDES = [("RL.OVERRIDE", "SET", "api", f"user:{number}", 1000, 60) for number in range(99_998)]
OVERRIDES += [("RL.OVERRIDE", "SET", "api", pattern, 1000, 60) for pattern in ("partner:*", "partner:gold:*")]
POLICY = (("RL.POLICY", "SET", "api", 1_000_000, 60), *OVERRIDES)
CHECK_POLICY = Work("RL.CHECK by a policy with 100,000 overrides", ("RL.CHECK", RANDOM_KEY, "api"), *ALLOWED, before=POLICY)
CHECK_DEGRADED = Work("RL.CHECK, fallback, 10,000 keys", CHECK.command, *DEGRADED)
LOAD_SCRIPT = (("SCRIPT", "LOAD", PLAIN_SCRIPT),)


def script(name, key, limit):
    """The plain script of one window of a minute."""
    command = ("EVALSHA", PLAIN_SHA, 1, key, limit, 60_000, "__rand_int__")
    return Work(name, command, begins="*2\r\n:1\r\n", before=LOAD_SCRIPT)


SCRIPT = script("plain script, 10,000 keys", RANDOM_KEY, 1_000_000)
SCRIPT_HOT = script("plain script, one hot key", "hot", 1_000_000_000)
GET_HOT = Work("GET, one key", ("GET", "hot"), "$3", before=(("SET", "hot", VALUE),))
GET = Work("GET, 10,000 keys", ("GET", RANDOM_KEY), "$3", before=tuple(("SET", key, VALUE) for key in ALL_KEYS))
SET = Work("SET, 10,000 keys", ("SET", RANDOM_KEY, VALUE), "+OK")
PING = Work("PING", ("PING",), "+PONG")
THROTTLE = Work("THROTTLE, 10,000 keys", ("THROTTLE", RANDOM_KEY, 1_000_000, 1_000_000, 60), "*5\r\n:1\r\n")


def direct(stack, _):
    """Redis itself."""
    return stack.enter_context(running(servers.start_redis))


def tollgate(stack, options):
    """Tollgate before a Redis."""
    redis = stack.enter_context(running(servers.start_redis))
    server = stack.enter_context(running(servers.start_tollgate, redis_port=redis.port, **options))
    server.behind = [redis]
    return server


def tollgate_before_cluster(stack, options):
    """Tollgate before a cluster, with each run of a script about many slots."""
    nodes = servers.start_cluster(stack)
    options = {"redis_port": nodes[0].port, "is_cluster": True, **options}
    server = stack.enter_context(running(servers.start_tollgate, **options))
    server.behind = nodes
    return server


def tollgate_by_slot(stack, options):
    """Tollgate before a cluster that would run no script without keys, so that each run is about one slot."""
    return tollgate_before_cluster(stack, options | {"redis__declare_keys": "true"})


def haproxy(stack, _):
    """HAProxy before a Redis."""
    redis = stack.enter_context(running(servers.start_redis))
    return stack.enter_context(running(servers.start_haproxy, redis_port=redis.port))


def haproxy_polling(stack, _):
    """HAProxy that never sleeps, before a Redis."""
    redis = stack.enter_context(running(servers.start_redis))
    return stack.enter_context(running(servers.start_haproxy, redis_port=redis.port, more="busy-polling"))


def tollgate_sleeping(stack, options):
    """Tollgate that sleeps whenever it has nothing to do, before a Redis."""
    return tollgate(stack, options | {"server__busy_poll_us": 0})


def tollgate_alone(stack, options):
    """Tollgate, and nobody where its Redis should be."""
    return stack.enter_context(running(servers.start_tollgate, redis_port=servers.free_port(), **options))


def tollgate_embedded(stack, options):
    """Tollgate with its own log."""
    return stack.enter_context(running(servers.start_tollgate, embedded=True, **options))


def throttlecrab(stack, _):
    """throttlecrab-server."""
    return stack.enter_context(running(servers.start_throttlecrab))


@dataclass(frozen=True)
class Side:
    """Some work, and who is asked for it."""

    setup: callable
    work: Work
    name: str


@dataclass(frozen=True)
class Bar:
    """What is to be reached beside a rival: `factor` of its throughput at least, or of its median latency or of the
    processor time of all its Redis servers a request at most."""

    metric: str
    factor: float

    def __str__(self):
        sign = "≥" if self.metric == "rps" else "≤"
        what = {"rps": "throughput", "p50_us": "p50", "redis_us": "Redis"}[self.metric]
        return f"{what} {sign} {self.factor:g} x"

    def met(self, ratio):
        """Whether this ratio reaches it."""
        return ratio >= self.factor if self.metric == "rps" else ratio <= self.factor


@dataclass(frozen=True)
class Row:
    """Tollgate's side, and those beside it."""

    name: str
    connections: int
    pipeline: int
    side: Side
    # Pairs of a side and its bars.
    rivals: tuple

    def sides(self):
        """All, Tollgate's first."""
        return [self.side, *(side for side, _ in self.rivals)]


def rows(with_throttlecrab):
    """The tables by their titles. A row may stand in several, and is measured once."""
    checked = Side(tollgate, CHECK, "Tollgate")
    plain = Side(direct, SCRIPT, "EVALSHA of the plain script")
    plain_behind_haproxy = Side(haproxy, SCRIPT, "the plain script through HAProxy")
    get = Side(direct, GET, "Redis GET")
    faster = lambda factor: (Bar("rps", factor),)

    def check(connections, pipeline, *bars):
        return Row(f"check-c{connections}-p{pipeline}", connections, pipeline, checked, ((plain, bars),))

    check_50_1, check_50_16 = check(50, 1, Bar("rps", 1.5)), check(50, 16, Bar("rps", 1.5))
    rival_crab = ((Side(throttlecrab, THROTTLE, "throttlecrab-server"), faster(3)),) if with_throttlecrab else ()
    bars = [
        check_50_1,
        check_50_16,
        Row(
            "hot-c50-p16", 50, 16, Side(tollgate, CHECK_HOT, "Tollgate"),
            ((Side(direct, SCRIPT_HOT, "the plain script on one key"), faster(4)),),
        ),
        Row(
            "denied-c50-p16", 50, 16, Side(tollgate, CHECK_DENIED, "Tollgate"),
            ((Side(direct, GET_HOT, "Redis GET"), faster(1)),),
        ),
        Row(
            "denied-c50-p1", 50, 1, Side(tollgate, CHECK_DENIED, "Tollgate"),
            ((Side(direct, PING, "Redis PING"), faster(0.9)),),
        ),
        Row("fallback-c50-p16", 50, 16, Side(tollgate_alone, CHECK_DEGRADED, "Tollgate"), ((get, faster(1)),)),
        Row(
            "embedded-c50-p16", 50, 16, Side(tollgate_embedded, CHECK_EMBEDDED, "Tollgate"),
            ((get, faster(1)), *rival_crab),
        ),
        Row(
            "policy-c50-p16", 50, 16, Side(tollgate, CHECK_POLICY, "Tollgate"),
            ((Side(tollgate, CHECK, "RL.CHECK with limits in the command"), faster(0.95)),),
        ),
        Row("latency-c1-p1", 1, 1, checked, ((plain_behind_haproxy, (Bar("p50_us", 1.1),)),)),
    ]  # fmt: skip
    points = [(1, 1), (1, 16), (50, 1), (50, 16)]
    scripts = [check(1, 1), check(1, 16), check_50_1, check_50_16]
    passed = []
    for work in (GET, SET):
        name = work.command[0]
        rivals = (
            (Side(haproxy, work, f"{name} through HAProxy"), (Bar("rps", 1), Bar("p50_us", 1))),
            (Side(direct, work, f"{name} direct"), ()),
        )
        for connections, pipeline in points:
            row = f"{name.lower()}-c{connections}-p{pipeline}"
            passed.append(Row(row, connections, pipeline, Side(tollgate, work, "Tollgate"), rivals))
    # Tollgate polls while one event follows another closely, HAProxy if told to: what is left when both do, or neither.
    alike = []
    for name, work, asked, bar in (("get-c1-p1", GET, GET, 1), ("latency-c1-p1", CHECK, SCRIPT, 1.1)):
        for how, ours, theirs in (("sleeping", tollgate_sleeping, haproxy), ("polling", tollgate, haproxy_polling)):
            rival = Side(theirs, asked, f"{asked.name.split(',')[0]} through HAProxy, both {how}")
            alike.append(Row(f"{name}-{how}", 1, 1, Side(ours, work, "Tollgate"), ((rival, (Bar("p50_us", bar),)),)))
    clusters = []
    one = Side(tollgate, CHECK, "one node")
    for name, setup, what, bars_at_16 in (
        ("cluster", tollgate_before_cluster, "a cluster of three", (Bar("redis_us", 1.25),)),
        ("slots", tollgate_by_slot, "a cluster of three, a run for each slot", ()),
    ):
        for pipeline in (16, 1):
            cluster_bars = bars_at_16 if pipeline == 16 else ()
            side = Side(setup, CHECK, what)
            clusters.append(Row(f"{name}-c50-p{pipeline}", 50, pipeline, side, ((one, cluster_bars),)))
    return {
        "The bars": bars,
        "RL.CHECK beside the plain script": scripts,
        "Other commands passed through": passed,
        "Both sleeping, or both polling": alike,
        BEFORE_CLUSTER: clusters,
    }


# The table that shows processor time.
BEFORE_CLUSTER = "RL.CHECK before a cluster, beside one node"


# One of each kind, for seeing that all still works.
SMOKE = ("check-c50-p16", "hot-c50-p16", "denied-c50-p16", "fallback-c50-p16", "embedded-c50-p16", "get-c50-p16")
SMOKE += ("cluster-c50-p16", "slots-c50-p16")
