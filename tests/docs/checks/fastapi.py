
import asyncio
import re
import socket
import time

import httpx
from fastapi import FastAPI

POLICY = '"api-1";q=3;w=60, "api-2";q=100;w=3600'
PROBLEM = {
    "type": "https://iana.org/assignments/http-problem-types#quota-exceeded",
    "title": "Quota Exceeded",
    "status": 429,
    "violated-policies": ["api-1"],
}


async def get(*limits, address="10.0.0.1", path="/"):
    app = FastAPI()
    app.add_middleware(RateLimit, *limits)
    app.get("/")(lambda: "hello")
    transport = httpx.ASGITransport(app, client=(address, 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        return await client.get(path)


def look(response, status, policy, state, retry_after=None):
    """Whether a response is so. What is `soon` may be as much as two seconds less, for the time that has passed."""
    fields = response.headers
    assert (response.status_code, fields.get("ratelimit-policy")) == (status, policy), (response, fields)
    assert response.status_code != 200 or response.json() == "hello"
    for name, wanted in (("ratelimit", state), ("retry-after", retry_after)):
        as_soon = lambda found: f"({'|'.join(str(int(found[1]) - less) for less in range(3))})"
        got, pattern = fields.get(name), re.sub(r"(\d+) soon", as_soon, wanted or "")
        assert got == wanted or wanted and re.fullmatch(pattern, got or ""), (got, wanted)


def use(**settings):
    """Has the middleware ask another Tollgate."""
    global tollgate
    settings = tollgate.connection_pool.connection_kwargs | settings
    tollgate = redis.Redis(connection_pool=redis.ConnectionPool(**settings))


async def main():
    look(await get("api"), 200, POLICY, '"api-1";r=2;t=60 soon, "api-2";r=99;t=3600 soon')
    look(await get("api"), 200, POLICY, '"api-1";r=1;t=60 soon, "api-2";r=98;t=3600 soon')
    look(await get("api"), 200, POLICY, '"api-1";r=0;t=60 soon, "api-2";r=97;t=3600 soon')
    denied = await get("api")
    look(denied, 429, POLICY, '"api-1";r=0;t=60 soon', "60 soon")
    assert denied.headers["content-type"] == "application/problem+json"
    assert denied.json() == PROBLEM
    # What the handler answers has the fields whatever its status.
    lost = await get("api", address="10.0.0.2", path="/nowhere")
    look(lost, 404, POLICY, '"api-1";r=2;t=60 soon, "api-2";r=99;t=3600 soon')

    policies = '"search-1";q=20, "search-2";q=600;w=60'
    look(await get("search"), 200, policies, '"search-1";r=19;t=1, "search-2";r=599;t=60 soon')
    blocked = await get("api", address="10.6.6.6")
    look(blocked, 429, None, None)
    assert blocked.json() == PROBLEM | {"violated-policies": []}
    look(await get("api", address="10.7.7.7"), 200, None, None)
    for _ in range(2):
        look(await get("trial"), 200, '"trial-1";q=1;w=60', '"trial-1";r=0;t=60 soon')
    look(await get(2, "1m"), 200, '"default-1";q=2;w=60', '"default-1";r=1;t=60 soon')
    try:
        await get("unknown")
        raise SystemExit("an unknown policy passes")
    except redis.ResponseError:
        pass

    # Its Redis is away.
    use(port=6381)
    look(await get("api"), 200, POLICY, '"api-1";r=0;t=60 soon, "api-2";r=49;t=72 soon')
    look(await get("api"), 429, POLICY, '"api-1";r=0;t=60 soon', "60 soon")

    # Nobody listens there; then somebody does, and says nothing.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for port in (1, silent.getsockname()[1]):
            use(host="127.0.0.1", port=port)
            began = time.monotonic()
            look(await get("api"), 200, None, None)
            assert time.monotonic() - began < 2


asyncio.run(main())

# Seconds are rounded up, and a window that is not of whole seconds has no `w`.
short = {"limit": 5, "window_ms": 1500, "remaining": 0, "retry_after_ms": 1001, "next_ms": 1000}
long = {"limit": 9, "window_ms": 2000, "remaining": 4, "retry_after_ms": 0, "next_ms": 1}
idle = {"limit": 9, "window_ms": 3000, "remaining": 9, "retry_after_ms": 0, "next_ms": 0}
reply = {"allowed": 0, "reason": "limit", "policy": "p", "retry_after_ms": 1001, "limits": [short, long, idle]}
policies = '"p-1";q=5, "p-2";q=9;w=2, "p-3";q=9;w=3'
denied = {"RateLimit-Policy": policies, "RateLimit": '"p-1";r=0;t=1', "Retry-After": "2"}
assert header_fields(reply) == (denied, ["p-1"])
allowed = {"RateLimit-Policy": policies, "RateLimit": '"p-1";r=0;t=1, "p-2";r=4;t=1, "p-3";r=9'}
assert header_fields(reply | {"allowed": 1, "retry_after_ms": 0})[0] == allowed
