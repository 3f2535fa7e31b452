"""A Celery worker as `celery worker` makes it, with Redis as broker and for results."""

import worker
from celery import Celery
from celery.signals import worker_ready

app = Celery(broker=f"redis://127.0.0.1:{worker.PORT}/0", backend=f"redis://127.0.0.1:{worker.PORT}/0")
# A job that was fetched before the outage and not begun would come again only when its visibility ends, in an hour.
app.conf.worker_disable_prefetch = True
app.conf.broker_connection_retry_on_startup = True


@app.task(name="work")
def work(name, seconds):
    worker.work(name, seconds)


@worker_ready.connect
def begin(**_):
    worker.begin(lambda *job: work.delay(*job), app.backend.client.execute_command)


if __name__ == "__main__":
    app.worker_main(["worker", "--concurrency", "1", "--loglevel", "INFO"])
