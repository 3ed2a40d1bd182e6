"""A process that serves the routes of conversations alone."""

import multiprocessing

import uvicorn
from fastapi import FastAPI

from small_doge.webui.chat_store import ChatStore
from small_doge.webui.errors import add_error_handlers
from small_doge.webui.preset_store import PresetStore
from small_doge.webui.routes.chats import make_chats_router
from small_doge.webui.routes.presets import make_presets_router
from small_doge.webui.serving import listen


def make_app(path):
    app = FastAPI()
    add_error_handlers(app)
    store = ChatStore(path)
    app.include_router(make_chats_router(store))
    app.include_router(make_presets_router(PresetStore(store.database)))
    return app


def serve(path, pipe):
    listener = listen("127.0.0.1", 0)
    app = make_app(path)
    pipe.send(listener.getsockname()[1])
    uvicorn.Server(uvicorn.Config(app, log_level="error")).run([listener])


def make_context():
    """Processes that begin with this module imported, which would take each of them seconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def start(path):
    """Start a server; return its process and the address of the conversations."""
    context = make_context()
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(path, theirs), daemon=True)
    process.start()
    theirs.close()
    return process, f"http://127.0.0.1:{ours.recv()}/api/v1/chats"
