
assert reply == [1, 10, 9, 0, 1000, 0], reply
