package main

import "log"

func main() {
	for turn := 0; turn < 3; turn++ {
		allowed, retryAfter, err := check("user:42", 2, "1m")
		if err != nil || allowed != (turn < 2) || (retryAfter > 0) != (turn == 2) {
			log.Fatal(turn, allowed, retryAfter, err)
		}
	}
	if _, _, err := check("user:42", "wrong", "1m"); err == nil {
		log.Fatal("an error reply is no error")
	}
}
