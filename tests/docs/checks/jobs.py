
from concurrent.futures import ThreadPoolExecutor

began = time.monotonic()
with ThreadPoolExecutor(4) as pool:
    list(pool.map(lambda _: wait_for_turn("partner", 5, "500ms"), range(20)))
# Of twenty turns, five may begin in any half second. A hundredth is left to clocks that differ.
assert time.monotonic() - began >= 1.49
