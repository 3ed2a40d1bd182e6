"""A connection to a server that can be cut, as when the server is killed or the network goes."""

import socket
import threading
from contextlib import suppress
from urllib.parse import urlsplit


class Cable:
    """Hands connections on to a server, from an address of its own, until it is cut."""

    def __init__(self, url):
        self.target = (urlsplit(url).hostname, urlsplit(url).port)
        self.ends = []
        self.listener = None
        self.port = 0
        self.mend()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.cut()

    @property
    def address(self):
        return f"http://127.0.0.1:{self.port}"

    def mend(self):
        """Take connections, on the same port as before."""
        self.listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self.listener,), daemon=True).start()

    def cut(self):
        """End all connections, and take no more."""
        for end in [self.listener, *self.ends]:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self.ends = []

    def _accept(self, listener):
        with suppress(OSError):
            while True:
                ours, _ = listener.accept()
                theirs = socket.create_connection(self.target)
                self.ends += [ours, theirs]
                for source, sink in ((ours, theirs), (theirs, ours)):
                    threading.Thread(target=self._copy, args=(source, sink), daemon=True).start()

    def _copy(self, source, sink):
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
