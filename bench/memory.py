"""What things cost in resident memory."""

import contextlib
import itertools

import rows
import servers
from servers import running

# A key as long as `user:0123456789`, or a little longer.
KEY = "key:{:012}"


def idle_clients(count, options):
    """Resident bytes of a Tollgate with so many clients that each sent one RL.CHECK and now are silent."""
    with contextlib.ExitStack() as stack:
        tollgate = rows.tollgate(stack, options | {"server__max_clients": count + 100})
        for number in range(count):
            client = stack.enter_context(servers.Client(tollgate.port))
            client.command("RL.CHECK", KEY.format(number), 100, 60)
        return tollgate.resident_bytes()


def grown_by(tollgate, commands, depth=1000):
    """Resident bytes that Tollgate has more after some commands than before."""
    # What the first check makes is no part of the cost of each.
    tollgate.command("RL.PEEK", "bench:first", 1, 60)
    before = tollgate.resident_bytes()
    servers.pipeline(tollgate.port, commands, depth)
    return tollgate.resident_bytes() - before


def per_connection(count, options):
    """Bytes for each idle client."""
    return (idle_clients(count, options) - idle_clients(1, options)) / count


def per_denial(count, options):
    """Bytes for each denial kept, in a cache with twice the room so that hardly any displaces another."""
    keep = {"deny_cache__max_ms": 3_600_000, "deny_cache__max_keys": 2 * count}
    # No bucket is kept for what the fallback would not decide by buckets.
    with contextlib.ExitStack() as stack:
        tollgate = rows.tollgate(stack, options | keep | {"fallback__mode": "closed", "redis__timeout_ms": 5000})
        checks = (("RL.CHECK", KEY.format(number), 1, "1h") for number in range(count) for _ in range(2))
        return grown_by(tollgate, checks) / count


def per_bucket(count, options):
    """Bytes for each bucket of the fallback."""
    with contextlib.ExitStack() as stack:
        tollgate = rows.tollgate_alone(stack, options | {"fallback__max_keys": count})
        return grown_by(tollgate, (("RL.CHECK", KEY.format(number), 100, "1h") for number in range(count))) / count


def per_embedded_key(count, options):
    """Bytes for each key of the embedded log that has one entry."""
    with contextlib.ExitStack() as stack:
        tollgate = rows.tollgate_embedded(stack, options | {"embedded__max_keys": count + 1})
        return grown_by(tollgate, (("RL.CHECK", KEY.format(number), 100, "1h") for number in range(count))) / count


def per_embedded_entry(count, options):
    """Bytes for each further entry of a key of the embedded log."""
    with contextlib.ExitStack() as stack:
        tollgate = rows.tollgate_embedded(stack, options)
        checks = itertools.repeat(("RL.CHECK", "hot", 1_000_000_000, "1h"), count)
        # One by one: what comes in one read is of one time, and makes one entry.
        return grown_by(tollgate, checks, depth=1) / count
