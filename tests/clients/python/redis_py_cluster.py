"""redis-py's class for clusters, pointed at a Tollgate before one: it takes Tollgate for the one node of all slots."""

import asyncio

import redis
import redis.asyncio.cluster
from harness import PORT, assert_allowed, assert_denied, fresh, run

# What a user of redis-py may set; without a protocol, versions differ in which they speak.
PROTOCOLS = {"default": {}, "RESP2": {"protocol": 2}, "RESP3": {"protocol": 3}}
# Enough that each of three nodes would have some.
KEYS = 50


def finds_one_node(client):
    assert client.ping() is True
    [node] = client.get_nodes()
    assert (node.host, node.port, node.server_type) == ("127.0.0.1", PORT, "primary"), node
    [named] = client.cluster_nodes()
    assert named == f"127.0.0.1:{PORT}", named
    assert client.cluster_info()["cluster_state"] == "ok"


def knows_slots(client):
    for key in ("foo", "{foo}bar", "{}"):
        assert client.cluster_keyslot(key) == client.keyslot(key), key


def counts_down(client):
    keys = [fresh("counts_down") for _ in range(KEYS)]
    for remaining in reversed(range(4)):
        for key in keys:
            assert_allowed(client.execute_command("RL.CHECK", key, 4, "1h"), 4, remaining)
    for key in keys:
        assert_denied(client.execute_command("RL.CHECK", key, 4, "1h"), 4)


def pipelined(client):
    keys = [fresh("pipelined") for _ in range(KEYS)]
    pipeline = client.pipeline()
    for key in keys:
        pipeline.execute_command("RL.CHECK", key, 4, "1h")
        pipeline.execute_command("RL.PEEK", key, 4, "1h")
    replies = pipeline.execute()
    assert len(replies) == 2 * KEYS
    for check, peek in zip(replies[::2], replies[1::2]):
        assert_allowed(check, 4, 3)
        assert_allowed(peek, 4, 2)


def reset_forgets(client):
    key = fresh("reset_forgets")
    client.execute_command("RL.CHECK", key, 2, "1h")
    assert client.execute_command("RL.RESET", key) == 1
    assert_allowed(client.execute_command("RL.CHECK", key, 2, "1h"), 2, 1)


def errors_are_the_commands_own(client):
    # Versions differ in whether they send a command that COMMAND does not list; but to a node.
    [node] = client.get_nodes()
    for asked, command, text in (
        (client, ("RL.CHECK", "key", 0, 60), "limit must be an integer between 1 and 1000000000"),
        (client.get_redis_connection(node), ("GET", "key"), "send 'GET' to the cluster"),
    ):
        try:
            reply = asked.execute_command(*command)
        except redis.ResponseError as error:
            assert text in str(error), error
        else:
            raise AssertionError(f"{command} got {reply}")


def by_asyncio(options):
    async def main():
        client = redis.asyncio.cluster.RedisCluster(host="127.0.0.1", port=PORT, **options)
        keys = [fresh("by_asyncio") for _ in range(KEYS)]
        for reply in await asyncio.gather(*(client.execute_command("RL.CHECK", key, 4, "1h") for key in keys)):
            assert_allowed(reply, 4, 3)
        pipeline = client.pipeline()
        for key in keys:
            pipeline.execute_command("RL.CHECK", key, 4, "1h")
        for reply in await pipeline.execute():
            assert_allowed(reply, 4, 2)
        await client.aclose()

    asyncio.run(main())


TESTS = [finds_one_node, knows_slots, counts_down, pipelined, reset_forgets, errors_are_the_commands_own]


def tests():
    for protocol, options in PROTOCOLS.items():
        client = redis.RedisCluster(host="127.0.0.1", port=PORT, **options)
        for test in TESTS:
            yield f"{test.__name__}, {protocol}", lambda test=test, client=client: test(client)
        yield f"by_asyncio, {protocol}", lambda options=options: by_asyncio(options)


run(tests())
