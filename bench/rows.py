"""What can be asked, and of whom: what the rows of the tables are made of."""

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
CHECK_GCRA = Work("RL.CHECK BY gcra allowed, 10,000 keys", (*CHECK.command, "BY", "gcra"), *ALLOWED)
CHECK_FIXED = Work("RL.CHECK BY fixed allowed, 10,000 keys", (*CHECK.command, "BY", "fixed"), *ALLOWED)
# As redis-cell answers: 0 is what it says of a request that may go ahead.
CL_THROTTLE = Work("CL.THROTTLE allowed, 10,000 keys", ("CL.THROTTLE", RANDOM_KEY, 1_000_000, 1_000_000, 60), "*5\r\n:0\r\n")
# A window so long that the log of the exact check loses nothing, and is asked the same throughout.
CHECK_HOT_HOUR = Work("RL.CHECK allowed, one hot key", ("RL.CHECK", "hot", 1_000_000_000, "1h"), *ALLOWED)
CHECK_SHARES = Work(
    "RL.CHECK allowed, one hot key, PREFETCH 100ms", (*CHECK_HOT_HOUR.command, "PREFETCH", "100ms"), *ALLOWED
)
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


def direct(stack, _, *options):
    """Redis itself."""
    redis = stack.enter_context(running(servers.start_redis, *options))
    redis.behind = [redis]
    return redis


def redis_cell(stack, options):
    """Redis itself, with redis-cell loaded."""
    return direct(stack, options, "--loadmodule", servers.redis_cell())


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
    proxy = stack.enter_context(running(servers.start_haproxy, redis_port=redis.port))
    proxy.behind = [redis]
    return proxy


def haproxy_polling(stack, _):
    """HAProxy that never sleeps, before a Redis."""
    redis = stack.enter_context(running(servers.start_redis))
    proxy = stack.enter_context(running(servers.start_haproxy, redis_port=redis.port, more="busy-polling"))
    proxy.behind = [redis]
    return proxy


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
