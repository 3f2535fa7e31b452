"""What the Python scripts share: where Tollgate is, what its store lets it promise, and results as TAP."""

import itertools
import os
import sys
import traceback

PORT = int(os.environ["TOLLGATE_PORT"])
# embedded, redis, down, flapping; or direct: no Tollgate, but Redis itself.
STORE = os.environ["TOLLGATE_STORE"]
DEGRADED = 1 if STORE == "down" else 0
HOUR_MS = 3_600_000

_numbers = itertools.count()


def fresh(name):
    """A key that no other test uses, nor another script on the same server."""
    return f"{os.path.basename(sys.argv[0])}:{os.getpid()}:{next(_numbers)}:{name}"


def admits(limit):
    """How many of `limit` a new key is granted: the fallback's buckets hold half, by default."""
    return limit // 2 if DEGRADED else limit


def assert_allowed(reply, limit, remaining, window_ms=HOUR_MS):
    assert reply[:4] == [1, limit, remaining, 0], reply
    assert 0 < reply[4] <= window_ms, reply
    assert reply[5:] == [DEGRADED], reply


def assert_denied(reply, limit, window_ms=HOUR_MS):
    assert reply[:3] == [0, limit, 0], reply
    assert 0 < reply[3] <= reply[4] <= window_ms, reply
    assert reply[5:] == [DEGRADED], reply


def run(tests):
    """Runs the (name, function) pairs, and exits."""
    tests = list(tests)
    print(f"1..{len(tests)}")
    failed = 0
    for number, (name, test) in enumerate(tests, 1):
        try:
            test()
        except Exception:
            failed += 1
            print(f"not ok {number} - {name}")
            print("".join(f"# {line}\n" for line in traceback.format_exc(limit=-3).splitlines()), end="")
        else:
            print(f"ok {number} - {name}")
    sys.exit(failed > 0)
