

def is_right(_user, password):
    return password == "open sesame"


assert all(log_in("ann", "open sesame", is_right) == "welcome" for _ in range(10))
assert [log_in("ann", "guess", is_right) for _ in range(6)] == ["wrong"] * 5 + ["later"]
assert log_in("ann", "open sesame", is_right) == "later"
assert log_in("bob", "open sesame", is_right) == "welcome"
