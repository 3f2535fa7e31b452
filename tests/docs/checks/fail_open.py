
assert [may_pass("user:42", 2, "1m") for _ in range(3)] == [True, True, False]

# Nobody listens there.
tollgate = redis.Redis(host="localhost", port=1, retry=Retry(NoBackoff(), 0))
assert may_pass("user:42", 2, "1m")
assert away_until > time.monotonic()
# It is not asked again now, and so not even an error of the call would show.
assert may_pass("user:42", "wrong")

away_until = 0
tollgate = redis.Redis(host="localhost", port=6380)
try:
    may_pass("user:42", "wrong", "1m")
    raise SystemExit("an error of the call passes for an outage")
except redis.ResponseError:
    pass
