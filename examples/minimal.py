"""The smallest app. In one terminal `celery -A minimal worker`, in another `python minimal.py`."""

from celery import Celery

# The broker is a file, so that this runs anywhere; in real life it is "redis://…" or "amqp://…".
app = Celery("minimal", broker="sqla+sqlite:///broker.db", backend="sql+sqlite:///results.db")


@app.task
def add(x, y):
    return x + y


if __name__ == "__main__":
    print(add.delay(2, 3).get(timeout=30))
