"""An RQ worker as `rq worker` makes it: it forks for each job, and blocks in BLPOP between them."""

import redis
import rq
from worker import PORT, begin, work

if __name__ == "__main__":
    connection = redis.Redis(port=PORT)
    queue = rq.Queue(connection=connection)
    worker = rq.Worker([queue], connection=connection)
    begin(lambda name, seconds: queue.enqueue(work, name, seconds), connection.execute_command)
    worker.work()
