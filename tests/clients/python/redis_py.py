"""redis-py: RL commands by its plain calls, in its pipelines, from its pools, and by asyncio."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import redis
import redis.asyncio
from harness import DEGRADED, PORT, STORE, admits, assert_allowed, assert_denied, fresh, run
from redis.backoff import NoBackoff
from redis.retry import Retry

CONNECTIONS = 20
# No wait of a client may come near this: the deadline for Redis is 50 ms, the rest is for a busy machine.
LONGEST_WAIT_SECONDS = 1.0
FLAPS = 4
FLAP_SECONDS = 30
# What a user of redis-py may set; without a protocol, versions differ in which they speak.
PROTOCOLS = {"default": {}, "RESP2": {"protocol": 2}, "RESP3": {"protocol": 3}}


def connects(client):
    assert client.ping() is True
    assert client.echo("hello") == b"hello"
    assert client.client_setname("tester")
    assert client.client_getname() in ("tester", b"tester")
    assert client.client_id() > 0


def counts_down(client):
    key = fresh("counts_down")
    for remaining in reversed(range(admits(4))):
        assert_allowed(client.execute_command("RL.CHECK", key, 4, "1h"), 4, remaining)
    for _ in range(3):
        assert_denied(client.execute_command("RL.CHECK", key, 4, "1h"), 4)


def several_windows_and_cost(client):
    key = fresh("several_windows_and_cost")
    reply = client.execute_command("RL.CHECK", key, 100, "1h", 10, "1m", "COST", 3)
    assert_allowed(reply, 10, admits(10) - 3, 60_000)
    reply = client.execute_command("RL.CHECK", key, 100, "1h", 10, "1m", "COST", 11)
    assert reply[0] == 0 and reply[3] == -1, reply


def peek_counts_nothing(client):
    key = fresh("peek_counts_nothing")
    for _ in range(3):
        assert_allowed(client.execute_command("RL.PEEK", key, 4, "1h"), 4, admits(4) - 1)


def reset_forgets(client):
    key = fresh("reset_forgets")
    client.execute_command("RL.CHECK", key, 2, "1h")
    assert client.execute_command("RL.RESET", key, fresh("unknown")) == 1
    assert_allowed(client.execute_command("RL.CHECK", key, 2, "1h"), 2, 1)


def help_is_lines(client):
    assert any(line.startswith(b"RL.CHECK ") for line in client.execute_command("RL.HELP"))


def mixed_pipeline(client):
    """A hundred commands of five kinds; redis-py's pipelines are transactions unless told otherwise."""
    key = fresh("mixed_pipeline")
    pipeline = client.pipeline(transaction=False)
    for number in range(20):
        pipeline.execute_command("RL.CHECK", key, 1000, "1h")
        pipeline.echo(f"echo {number}")
        pipeline.execute_command("RL.CHECK", key, "many", "1h")
        pipeline.ping()
        pipeline.execute_command("RL.PEEK", key, 1000, "1h")
    replies = pipeline.execute(raise_on_error=False)
    assert len(replies) == 100
    for number in range(20):
        check, echo, error, pong, peek = replies[5 * number : 5 * number + 5]
        assert_allowed(check, 1000, admits(1000) - number - 1)
        assert echo == f"echo {number}".encode(), echo
        assert isinstance(error, redis.ResponseError) and "limit must be an integer" in str(error), error
        assert pong is True, pong
        assert_allowed(peek, 1000, admits(1000) - number - 2)


def keys_are_bytes(client):
    stem = fresh("keys_are_bytes").encode()
    keys = [stem + tail for tail in (b"\x00", b"\x01", b"\r\n", b"{}", b"}{", b"\xff\xfe", b" '\"", b"x" * 900)]
    for remaining in reversed(range(admits(4))):
        for key in keys:
            assert_allowed(client.execute_command("RL.CHECK", key, 4, "1h"), 4, remaining)


def errors_leave_the_connection(client):
    cases = [
        (("RL.CHECK",), "wrong number of arguments for 'rl.check' command"),
        (("RL.CHECK", "key", 0, 60), "limit must be an integer between 1 and 1000000000"),
        (("RL.CHECK", "key", 10, "1y"), "window must be "),
        (("RL.CHECK", "", 10, 60), "key"),
        (("RL.CHECK", "key", 10, 60, "FOO", 1), "unknown option 'FOO' for 'rl.check'"),
    ]
    with redis.Redis(connection_pool=client.connection_pool, single_connection_client=True) as one:
        held = one.connection._sock
        for command, text in cases:
            try:
                reply = one.execute_command(*command)
            except redis.ResponseError as error:
                assert text in str(error), error
            else:
                raise AssertionError(f"{command} got {reply}")
        assert one.ping() is True
        assert one.connection._sock is held


def a_pool_shares_a_limit(client):
    key = fresh("a_pool_shares_a_limit")
    begin = threading.Barrier(CONNECTIONS)

    def work(_):
        begin.wait()
        return sum(client.execute_command("RL.CHECK", key, 100, "1h")[0] for _ in range(10))

    with ThreadPoolExecutor(CONNECTIONS) as threads:
        allowed = sum(threads.map(work, range(CONNECTIONS)))
    assert allowed == admits(100), allowed


def by_asyncio(options):
    """The same by asyncio: one call, a pipeline, a pool."""

    async def main():
        pool = redis.asyncio.BlockingConnectionPool(port=PORT, max_connections=CONNECTIONS, **options)
        client = redis.asyncio.Redis.from_pool(pool)
        key = fresh("by_asyncio")
        assert_allowed(await client.execute_command("RL.CHECK", key, 4, "1h"), 4, admits(4) - 1)
        pipeline = client.pipeline(transaction=False)
        for number in range(50):
            pipeline.execute_command("RL.PEEK", key, 4, "1h")
            pipeline.echo(str(number))
        replies = await pipeline.execute()
        assert replies[1::2] == [str(number).encode() for number in range(50)]
        checks = [client.execute_command("RL.CHECK", key, 100, "1m") for _ in range(200)]
        assert sum(reply[0] for reply in await asyncio.gather(*checks)) == admits(100)
        await client.aclose()

    asyncio.run(main())


def while_redis_flaps(options):
    """Every call gets an answer at once, on a connection that stays, whether Redis is there or not."""
    with redis.Redis(port=PORT, retry=Retry(NoBackoff(), 0), single_connection_client=True, **options) as client:
        client.ping()
        held = client.connection._sock
        key = fresh("while_redis_flaps")
        seen, deadline = [], time.monotonic() + FLAP_SECONDS
        while len(seen) <= FLAPS:
            asked = time.monotonic()
            reply = client.execute_command("RL.CHECK", key, 1_000_000_000, "1h")
            waited = time.monotonic() - asked
            assert len(reply) == 6 and reply[0] == 1, reply
            assert waited < LONGEST_WAIT_SECONDS, waited
            if seen[-1:] != reply[5:]:
                seen.append(reply[5])
            assert time.monotonic() < deadline, f"degraded was only {seen}"
        assert client.connection._sock is held


SYNC_TESTS = [
    connects,
    counts_down,
    several_windows_and_cost,
    peek_counts_nothing,
    help_is_lines,
    mixed_pipeline,
    keys_are_bytes,
    errors_leave_the_connection,
    a_pool_shares_a_limit,
]


def tests():
    for protocol, options in PROTOCOLS.items():
        if STORE == "flapping":
            yield f"while_redis_flaps, {protocol}", lambda options=options: while_redis_flaps(options)
            continue
        client = redis.Redis(connection_pool=redis.ConnectionPool(port=PORT, max_connections=CONNECTIONS, **options))
        # While Redis is down there is nothing that could be reset.
        for test in SYNC_TESTS + ([] if DEGRADED else [reset_forgets]):
            yield f"{test.__name__}, {protocol}", lambda test=test, client=client: test(client)
        yield f"by_asyncio, {protocol}", lambda options=options: by_asyncio(options)


run(tests())
