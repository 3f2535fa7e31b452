"""redis-py as an app uses it: all that is Redis's own must mean the same through Tollgate as straight to Redis."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

import redis
import redis.asyncio
from harness import PORT, STORE, assert_allowed, fresh, run

WAIT_SECONDS = 10
# What a user of redis-py may set; without a protocol, versions differ in which they speak.
PROTOCOLS = {"default": {}, "RESP2": {"protocol": 2}, "RESP3": {"protocol": 3}}


def connect(options, **more):
    return redis.Redis(port=PORT, socket_timeout=WAIT_SECONDS, **options, **more)


def wait_until(condition):
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.005)


def next_message(pubsub):
    message = None
    deadline = time.monotonic() + WAIT_SECONDS
    while message is None:
        assert time.monotonic() < deadline, "no message"
        message = pubsub.get_message(timeout=1)
    return message["type"], message["channel"], message["data"]


def data_types(options):
    client, key = connect(options, decode_responses=True), fresh("data_types")
    assert client.set(key, "value", px=60_000) is True and client.get(key) == "value"
    assert 0 < client.pttl(key) <= 60_000
    assert client.get(fresh("none")) is None
    assert client.hset(key + "h", mapping={"a": 1, "b": 2}) == 2 and client.hgetall(key + "h") == {"a": "1", "b": "2"}
    assert client.rpush(key + "l", *range(100)) == 100 and client.lrange(key + "l", 98, -1) == ["98", "99"]
    assert client.sadd(key + "s", "a", "b") == 2 and client.smembers(key + "s") == {"a", "b"}
    assert client.zadd(key + "z", {"a": 1.5, "b": 2}) == 2 and client.zscore(key + "z", "a") == 1.5
    assert [member for member, _ in client.zrange(key + "z", 0, -1, withscores=True)] == ["a", "b"]
    first = client.xadd(key + "x", {"field": "value"})
    assert client.xrange(key + "x") == [(first, {"field": "value"})]
    assert client.setbit(key + "b", 7, 1) == 0 and client.bitcount(key + "b") == 1
    assert len(list(client.scan_iter(match=key + "*", count=2))) == 7
    assert client.object("encoding", key + "l") in ("listpack", "quicklist")
    assert client.type(key + "z") == "zset" and client.delete(key, key + "h") == 2


def large_values(options):
    client, key = connect(options), fresh("large_values")
    value = bytes(range(256)) * 20_000
    assert client.set(key, value) and client.get(key) == value
    assert client.append(key, value) == 2 * len(value) and client.strlen(key) == 2 * len(value)
    assert client.mget([key] * 3) == [value + value] * 3
    client.delete(key)


def errors(options):
    client, key = connect(options, single_connection_client=True), fresh("errors")
    held = client.connection._sock
    client.set(key, "text")
    for command, text in [
        (("INCR", key), "value is not an integer"),
        (("LPUSH", key, "x"), "Operation against a key holding the wrong kind of value"),
        (("GET",), "wrong number of arguments for 'get' command"),
        (("NO.SUCH", "a", "b"), "unknown command 'NO.SUCH', with args beginning with: 'a' 'b'"),
    ]:
        try:
            raise AssertionError(client.execute_command(*command))
        except redis.ResponseError as error:
            assert text in str(error), error
    assert client.get(key) == b"text" and client.connection._sock is held


def pipelines(options):
    """A pipeline of a thousand, and one of errors among replies."""
    client, key = connect(options), fresh("pipelines")
    pipeline = client.pipeline(transaction=False)
    for number in range(500):
        pipeline.incr(key).echo(number)
    expected = [reply for number in range(500) for reply in (number + 1, str(number).encode())]
    assert pipeline.execute() == expected
    replies = pipeline.set(key, "x").incr(key).get(key).execute(raise_on_error=False)
    assert replies[0] is True and isinstance(replies[1], redis.ResponseError) and replies[2] == b"x", replies


def transactions(options):
    client, key = connect(options), fresh("transactions")
    assert client.pipeline().set(key, 1).incr(key).get(key).execute() == [True, 2, b"2"]
    replies = client.pipeline().lpush(key, "x").incr(key).execute(raise_on_error=False)
    assert isinstance(replies[0], redis.ResponseError) and replies[1] == 3, replies
    try:
        raise AssertionError(client.pipeline().set(key, 9).execute_command("GET").execute())
    except redis.ResponseError:
        pass
    assert client.get(key) == b"3"


def watches(options):
    """A write between WATCH and EXEC undoes the transaction; without one it goes through; many writers lose none."""
    client, key = connect(options), fresh("watches")
    with client.pipeline() as pipeline:
        pipeline.watch(key)
        client.set(key, "other")
        pipeline.multi()
        pipeline.set(key, "mine")
        try:
            raise AssertionError(pipeline.execute())
        except redis.WatchError:
            pass
        pipeline.watch(key)
        assert pipeline.get(key) == b"other"
        pipeline.multi()
        assert pipeline.set(key, 0).execute() == [True]

    def add(_):
        def increment(pipeline):
            count = int(pipeline.get(key))
            pipeline.multi()
            pipeline.set(key, count + 1)

        client.transaction(increment, key)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(add, range(20)))
    assert client.get(key) == b"20"


def publishes(options):
    client, channel = connect(options), fresh("publishes").encode()
    pubsub = client.pubsub()
    pubsub.subscribe(channel)
    assert next_message(pubsub) == ("subscribe", channel, 1)
    pubsub.psubscribe(channel + b":*")
    assert next_message(pubsub) == ("psubscribe", channel + b":*", 2)
    assert client.publish(channel, b"\x00\r\n") == 1
    assert next_message(pubsub) == ("message", channel, b"\x00\r\n")
    assert client.publish(channel + b":x", "more") == 1
    assert next_message(pubsub) == ("pmessage", channel + b":x", b"more")
    assert client.pubsub_numsub(channel) == [(channel, 1)]
    pubsub.ping()
    assert next_message(pubsub)[0] == "pong"
    pubsub.unsubscribe()
    assert next_message(pubsub) == ("unsubscribe", channel, 1)
    assert client.publish(channel, "nobody") == 0
    pubsub.close()
    wait_until(lambda: client.pubsub_numpat() == 0)


def many_messages(options):
    client, channel = connect(options), fresh("many_messages")
    pubsub = client.pubsub(ignore_subscribe_messages=True)
    pubsub.subscribe(channel)
    wait_until(lambda: client.pubsub_numsub(channel)[0][1] == 1)
    pipeline = client.pipeline(transaction=False)
    for number in range(5000):
        pipeline.publish(channel, number)
    assert pipeline.execute() == [1] * 5000
    for number in range(5000):
        assert next_message(pubsub)[2] == str(number).encode()
    pubsub.close()


def blocking_pops(options):
    client, key = connect(options), fresh("blocking_pops")
    assert client.blpop(key, timeout=0.05) is None
    with ThreadPoolExecutor(3) as threads:
        popped = threads.submit(client.blpop, [key + "other", key], WAIT_SECONDS)
        wait_until(lambda: client.info("clients")["blocked_clients"] == 1)
        client.rpush(key, "a", "b")
        assert tuple(popped.result()) == (key.encode(), b"a")
        moved = threads.submit(client.blmove, key + "empty", key, WAIT_SECONDS)
        added = threads.submit(client.xread, {key + "x": "$"}, None, WAIT_SECONDS * 1000)
        wait_until(lambda: client.info("clients")["blocked_clients"] == 2)
        client.rpush(key + "empty", "c")
        client.xadd(key + "x", {"field": "value"})
        assert moved.result() == b"c" and len(added.result()) == 1
    assert client.lrange(key, 0, -1) == [b"b", b"c"]


def gone_while_blocked(options):
    """A client that goes away while it is blocked takes nothing with it."""
    client, key = connect(options), fresh("gone_while_blocked")
    blocked = connect(options, single_connection_client=True)
    blocked.connection.send_command("BLPOP", key, WAIT_SECONDS)
    wait_until(lambda: client.info("clients")["blocked_clients"] == 1)
    blocked.connection.disconnect()
    wait_until(lambda: client.info("clients")["blocked_clients"] == 0)
    assert client.rpush(key, "kept") == 1 and client.lpop(key) == b"kept"


def scripts(options):
    client, key = connect(options), fresh("scripts")
    script = client.register_script("return {KEYS[1], ARGV[1], redis.call('INCR', KEYS[1])}")
    client.script_flush()
    assert script(keys=[key], args=["x"]) == [key.encode(), b"x", 1]
    pipeline = client.pipeline(transaction=False)
    script(keys=[key], args=["y"], client=pipeline)
    assert pipeline.execute() == [[key.encode(), b"y", 2]]
    assert client.script_exists(script.sha) == [True]
    assert len(client.eval("local t = {} for i = 1, 100000 do t[i] = i end return t", 0)) == 100_000
    try:
        raise AssertionError(client.eval("return redis.error_reply('MINE failed')", 0))
    except redis.ResponseError as error:
        assert "MINE failed" in str(error), error


def handshakes(options):
    """The database and the names that a client gives when it connects; and what it changes later."""
    client, key = connect(options, db=3, client_name="tester"), fresh("handshakes")
    client.set(key, "three")
    assert connect(options).get(key) is None and connect(options, db=3).get(key) == b"three"
    info = client.client_info()
    assert (info["db"], info["name"]) == (3, "tester"), info
    assert info["id"] == client.client_id()
    one = connect(options, single_connection_client=True)
    assert one.select(3) and one.get(key) == b"three"
    assert one.client_setname("renamed") and one.client_getname() in ("renamed", b"renamed")
    assert "renamed" in [entry["name"] for entry in client.client_list()]
    assert client.delete(key) == 1
    hello = one.execute_command("HELLO")
    fields = hello if isinstance(hello, dict) else dict(zip(hello[::2], hello[1::2]))
    assert fields[b"proto"] == options.get("protocol", fields[b"proto"]) and fields[b"server"], fields
    assert client.info("server")["redis_version"] == fields[b"version"].decode()


def monitors(options):
    client, key = connect(options), fresh("monitors")
    with client.monitor() as monitor:
        client.set(key, "x")
        deadline = time.monotonic() + WAIT_SECONDS
        while f"SET {key} x" not in monitor.next_command()["command"]:
            assert time.monotonic() < deadline


def by_asyncio(options):
    async def main():
        client, key = redis.asyncio.Redis(port=PORT, **options), fresh("by_asyncio")
        pubsub = client.pubsub(ignore_subscribe_messages=True)
        await pubsub.subscribe(key)
        popped = asyncio.create_task(client.blpop(key, WAIT_SECONDS))
        counted = await asyncio.gather(*(client.incr(key + "count") for _ in range(50)))
        assert sorted(counted) == list(range(1, 51))
        assert await client.rpush(key, "x") == 1 and tuple(await popped) == (key.encode(), b"x")
        assert await client.pipeline().set(key, "x").get(key).execute() == [True, b"x"]
        message = None
        while not (await client.publish(key, "hello") and message):
            message = await pubsub.get_message(timeout=WAIT_SECONDS)
        assert message["data"] == b"hello"
        await pubsub.aclose()
        await client.aclose()

    asyncio.run(asyncio.wait_for(main(), WAIT_SECONDS))


def tracking_by_redirect(options):
    """What one connection has read and another then writes is told to a third. This is how RESP2 does it."""
    client, key = connect(options), fresh("tracking_by_redirect")
    listener = connect({"protocol": 2}, client_name=key)
    pubsub = listener.pubsub(ignore_subscribe_messages=True)
    pubsub.subscribe("__redis__:invalidate")
    wait_until(lambda: key in [entry["name"] for entry in client.client_list(_type="pubsub")])
    redirect = next(entry["id"] for entry in client.client_list(_type="pubsub") if entry["name"] == key)
    reader = connect(options, single_connection_client=True)
    assert reader.execute_command("CLIENT", "TRACKING", "ON", "REDIRECT", redirect) == b"OK"
    assert reader.get(key) is None
    client.set(key, "new")
    assert next_message(pubsub)[2] == [key.encode()]
    pubsub.close()


def limits_among_them(options):
    """RL commands between Redis's own, in one pipeline and on a connection that is subscribed or in a transaction."""
    client, key = connect(options), fresh("limits_among_them")
    pipeline = client.pipeline(transaction=False)
    for _ in range(25):
        pipeline.execute_command("RL.CHECK", key, 100, "1h").incr(key + "n").execute_command("RL.PEEK", key, 100, "1h")
        pipeline.get(key + "n")
    replies = pipeline.execute()
    for number in range(25):
        check, incremented, peek, got = replies[4 * number : 4 * number + 4]
        assert_allowed(check, 100, 99 - number)
        assert_allowed(peek, 100, 98 - number)
        assert incremented == number + 1 and got == str(number + 1).encode()
    assert client.type(f"rl:{{{key}}}:3600000") == b"zset"
    try:
        raise AssertionError(client.pipeline().set(key, 1).execute_command("RL.CHECK", key, 1, "1h").execute())
    except redis.ResponseError as error:
        assert "'rl.check' cannot run inside MULTI" in str(error), error
    assert client.exists(key) == 0


TESTS = [
    data_types,
    large_values,
    errors,
    pipelines,
    transactions,
    watches,
    publishes,
    many_messages,
    blocking_pops,
    gone_while_blocked,
    scripts,
    handshakes,
    monitors,
    by_asyncio,
    tracking_by_redirect,
]
if STORE != "direct":
    TESTS.append(limits_among_them)

run(
    (f"{test.__name__}, {protocol}", lambda test=test, options=options: test(options))
    for protocol, options in PROTOCOLS.items()
    for test in TESTS
)
