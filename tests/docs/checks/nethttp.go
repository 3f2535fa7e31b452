package main

import (
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"regexp"
	"strings"
	"time"

	"github.com/gomodule/redigo/redis"
)

const policy = `"api-1";q=3;w=60, "api-2";q=100;w=3600`
const problem = `{"status":429,"title":"Quota Exceeded",` +
	`"type":"https://iana.org/assignments/http-problem-types#quota-exceeded","violated-policies":`

type fields struct{ policy, state, retryAfter string }

func get(client string, limits ...interface{}) *httptest.ResponseRecorder {
	hello := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {})
	recorder, request := httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil)
	request.RemoteAddr = client + ":1"
	rateLimit(hello, limits...).ServeHTTP(recorder, request)
	return recorder
}

// look ends the program unless a response is so. What is soon may be as much as two seconds less, for the time that
// passes.
func look(response *httptest.ResponseRecorder, status int, wanted fields) {
	header := response.Header()
	got := fields{header.Get("RateLimit-Policy"), header.Get("RateLimit"), header.Get("Retry-After")}
	soon := strings.NewReplacer("72 soon", "7[012]", "3600 soon", "(3600|359[89])", "60 soon", "(60|5[89])")
	is := func(wanted, got string) bool {
		return regexp.MustCompile("^" + soon.Replace(wanted) + "$").MatchString(got)
	}
	if response.Code != status || got.policy != wanted.policy || !is(wanted.state, got.state) ||
		!is(wanted.retryAfter, got.retryAfter) {
		log.Fatal(response.Code, got, " in place of ", status, wanted)
	}
}

// use has the middleware ask another Tollgate.
func use(another string) {
	address = another
	tollgate = &redis.Pool{Dial: tollgate.Dial}
}

// answering returns the address of a server that answers all that it is asked so.
func answering(reply string) string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				log.Fatal(err)
			}
			connection.Write([]byte(reply))
		}
	}()
	return listener.Addr().String()
}

func main() {
	look(get("10.0.0.1", "api"), 200, fields{policy, `"api-1";r=2;t=60 soon, "api-2";r=99;t=3600 soon`, ""})
	look(get("10.0.0.1", "api"), 200, fields{policy, `"api-1";r=1;t=60 soon, "api-2";r=98;t=3600 soon`, ""})
	look(get("10.0.0.1", "api"), 200, fields{policy, `"api-1";r=0;t=60 soon, "api-2";r=97;t=3600 soon`, ""})
	denied := get("10.0.0.1", "api")
	look(denied, 429, fields{policy, `"api-1";r=0;t=60 soon`, "60 soon"})
	if denied.Header().Get("Content-Type") != "application/problem+json" ||
		denied.Body.String() != problem+"[\"api-1\"]}\n" {
		log.Fatal(denied)
	}
	look(get("10.0.0.1", "search"), 200, fields{`"search-1";q=20, "search-2";q=600;w=60`,
		`"search-1";r=19;t=1, "search-2";r=599;t=60 soon`, ""})
	blocked := get("10.6.6.6", "api")
	look(blocked, 429, fields{})
	if blocked.Body.String() != problem+"[]}\n" {
		log.Fatal(blocked)
	}
	look(get("10.7.7.7", "api"), 200, fields{})
	for turn := 0; turn < 2; turn++ {
		look(get("10.0.0.1", "trial"), 200, fields{`"trial-1";q=1;w=60`, `"trial-1";r=0;t=60 soon`, ""})
	}
	look(get("10.0.0.1", 2, "1m"), 200, fields{`"default-1";q=2;w=60`, `"default-1";r=1;t=60 soon`, ""})
	look(get("10.0.0.1", "unknown"), 500, fields{})

	// Its Redis is away.
	use("localhost:6381")
	look(get("10.0.0.1", "api"), 200, fields{policy, `"api-1";r=0;t=60 soon, "api-2";r=49;t=72 soon`, ""})
	look(get("10.0.0.1", "api"), 429, fields{policy, `"api-1";r=0;t=60 soon`, "60 soon"})

	// Nobody listens there; then somebody does, and says nothing.
	for _, another := range []string{"localhost:1", answering("")} {
		use(another)
		began := time.Now()
		look(get("10.0.0.1", "api"), 200, fields{})
		if time.Since(began) > 2*time.Second {
			log.Fatal("it waits")
		}
	}
	// What is no map is no outage.
	use(answering("*1\r\n:1\r\n"))
	look(get("10.0.0.1", "api"), 500, fields{})

	// Seconds are rounded up, and a window that is not of whole seconds has no `w`.
	all := limits{{5, 1500, 0, 1001, 1000}, {9, 2000, 4, 0, 1}, {9, 3000, 9, 0, 0}}
	header := http.Header{}
	violated := setFields(header, reply{Reason: "limit", Policy: "p", RetryAfter: 1001, Limits: all})
	policies := `"p-1";q=5, "p-2";q=9;w=2, "p-3";q=9;w=3`
	wanted := http.Header{"Ratelimit-Policy": {policies}, "Ratelimit": {`"p-1";r=0;t=1`}, "Retry-After": {"2"}}
	if !reflect.DeepEqual(header, wanted) || !reflect.DeepEqual(violated, []string{"p-1"}) {
		log.Fatal(header, violated)
	}
	header = http.Header{}
	setFields(header, reply{Allowed: true, Reason: "ok", Policy: "p", Limits: all})
	states := `"p-1";r=0;t=1, "p-2";r=4;t=1, "p-3";r=9`
	if !reflect.DeepEqual(header, http.Header{"Ratelimit-Policy": {policies}, "Ratelimit": {states}}) {
		log.Fatal(header)
	}
}
