package main

import (
	"log"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/gomodule/redigo/redis"
)

func main() {
	hello := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {})
	status := func(limit interface{}) (int, string) {
		recorder := httptest.NewRecorder()
		rateLimit(hello, limit, "1m").ServeHTTP(recorder, httptest.NewRequest("GET", "/", nil))
		return recorder.Code, recorder.Header().Get("Retry-After")
	}
	for _, wanted := range []int{200, 200, 429} {
		if got, after := status(2); got != wanted || (got == 429) != (after == "60" || after == "59") {
			log.Fatal(got, after)
		}
	}
	if got, _ := status("wrong"); got != 500 {
		log.Fatal("a wrong call passes: ", got)
	}
	// Nobody listens there.
	tollgate = &redis.Pool{Dial: func() (redis.Conn, error) {
		return redis.Dial("tcp", "localhost:1", redis.DialConnectTimeout(time.Second))
	}}
	if got, _ := status(2); got != 200 {
		log.Fatal("an outage denies: ", got)
	}
}
