
assert [may_pass("user:42", 2, "1m") for _ in range(3)] == [True, True, False]

# Nobody listens there.
settings = tollgate.connection_pool.connection_kwargs
tollgate = redis.Redis(connection_pool=redis.ConnectionPool(**settings | {"port": 1}))
assert may_pass("user:42", 2, "1m")
assert away_until > time.monotonic()
# It is not asked again now, and so not even an error of the call would show.
assert may_pass("user:42", "wrong")

# Somebody listens there, and says nothing.
import socket

with socket.create_server(("127.0.0.1", 0)) as silent:
    away_until = 0
    settings |= {"port": silent.getsockname()[1], "host": "127.0.0.1"}
    tollgate = redis.Redis(connection_pool=redis.ConnectionPool(**settings))
    began = time.monotonic()
    assert may_pass("user:42", 2, "1m")
    assert 0.2 < time.monotonic() - began < 2

away_until = 0
tollgate = redis.Redis(host="localhost", port=6380)
try:
    may_pass("user:42", "wrong", "1m")
    raise SystemExit("an error of the call passes for an outage")
except redis.ResponseError:
    pass
