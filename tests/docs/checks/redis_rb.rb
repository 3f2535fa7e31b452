
raise unless check("user:42", 1, "1m") == [true, 0]
raise if check("user:42", 1, "1m")[0]
