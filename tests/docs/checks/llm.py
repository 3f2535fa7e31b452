
assert ms_to_wait("ann", "x" * 4_000, 14_000) == 0
assert 0 < ms_to_wait("ann", "x" * 4_000, 14_000) <= 60_000
assert ms_to_wait("bob", "x" * 4_000, 14_000) == 0
try:
    ms_to_wait("eve", "x", 30_000)
    raise SystemExit("it can never fit, and that is not said")
except TooLarge:
    pass
