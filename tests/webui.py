"""A server in a thread of the test's process, on a free port."""

import asyncio
import tempfile
import threading
import time
from contextlib import contextmanager

import uvicorn

from small_doge.webui.app import create_app
from small_doge.webui.serving import listen, make_config
from small_doge.webui.settings import ServeSettings


@contextmanager
def run_app(**settings):
    """Serve an application; gives its address, and the application as `app`."""
    with tempfile.TemporaryDirectory() as folder:
        checked = ServeSettings(**{"chats": f"{folder}/chats.db", **settings})
        app = create_app(checked, lambda text: None)
        with _run(make_config(app, checked)) as address:
            yield address, app


@contextmanager
def run_asgi(app):
    """Serve any application; gives its address."""
    with _run(uvicorn.Config(app, log_level="warning", lifespan="on")) as address:
        yield address


@contextmanager
def _run(config):
    listener = listen("127.0.0.1", 0)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=asyncio.run, args=(server.serve([listener]),), daemon=True)
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(30)
        listener.close()
        assert not thread.is_alive(), "the server did not stop"
