"""Asks by a pool of redis-py with its default settings until its input ends, and says what came of it as JSON."""

import collections
import json
import os
import sys
import threading
import time

import redis

CALLERS = 20
PAUSE_SECONDS = 0.002

client = redis.Redis(host="127.0.0.1", port=int(os.environ["TOLLGATE_PORT"]))
ended = threading.Event()
lock = threading.Lock()
result = {"library": f"redis-py {redis.__version__}", "asked": 0, "counted": 0, "slowest_ms": 0}
errors = collections.Counter()


def ask(number):
    began = time.monotonic()
    counted, error = 0, None
    try:
        if number % 3 == 0:
            allowed = client.execute_command("RL.CHECK", f"user:{number % 100}", 1_000_000, "1m")[0]
            assert allowed == 1
        elif number % 3 == 1:
            client.incr("counter")
            counted = 1
        else:
            client.get("counter")
    except Exception as caught:
        error = f"{type(caught).__name__}: {caught}"
    took_ms = round((time.monotonic() - began) * 1000)
    with lock:
        result["asked"] += 1
        result["counted"] += counted
        result["slowest_ms"] = max(result["slowest_ms"], took_ms)
        if error:
            errors[error] += 1


def ask_on(first):
    number = first
    while not ended.is_set():
        ask(number)
        number += 1
        time.sleep(PAUSE_SECONDS)


threads = [threading.Thread(target=ask_on, args=(first,)) for first in range(CALLERS)]
for thread in threads:
    thread.start()
sys.stdin.read()
ended.set()
for thread in threads:
    thread.join()
print(json.dumps({**result, "errors": errors}))
