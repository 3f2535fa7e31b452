
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.testclient import TestClient


async def hello(_request):
    return PlainTextResponse("hello")


app = Starlette(routes=[Route("/", hello)])
app.add_middleware(RateLimit, 2, "1m")
with TestClient(app) as client:
    replies = [client.get("/") for _ in range(3)]
    assert [reply.status_code for reply in replies] == [200, 200, 429]
    assert 58 <= int(replies[2].headers["retry-after"]) <= 60
    # Nobody listens there.
    tollgate = redis.Redis(host="localhost", port=1, retry=Retry(NoBackoff(), 0))
    assert client.get("/").status_code == 200
