"""A server that is killed while it writes loses nothing that it had confirmed."""

import random
import sqlite3
import threading
import time
from contextlib import closing

import httpx
import pytest
from tests.unit.webui.chats_server import start


WRITERS = 4


class Writer(threading.Thread):
    """Makes conversations, adds to them and deletes some until the server is gone; keeps what was confirmed."""

    def __init__(self, address, number):
        super().__init__()
        self.address, self.number = address, number
        self.confirmed, self.deleted, self.failures = {}, set(), []

    def run(self):
        draw = random.Random(self.number)
        with httpx.Client(timeout=30) as client:
            try:
                while True:
                    self.write(client, draw)
            except httpx.TransportError:
                return

    def write(self, client, draw):
        chat = client.post(self.address, json={"title": f"w{self.number}"})
        self.expect(chat, 201)
        name = chat.json()["id"]
        self.confirmed[name] = {}
        for i in range(draw.randrange(1, 6)):
            content = f"{name} {i} " + "中x" * draw.choice([1, 3000])
            answer = client.post(
                f"{self.address}/{name}/messages", json={"messages": [{"role": "user", "content": content}]}
            )
            self.expect(answer, 200)
            self.confirmed[name][answer.json()["current_id"]] = content
        if draw.random() < 0.2:
            del self.confirmed[name]  # it may be there or not, until that is confirmed
            self.expect(client.delete(f"{self.address}/{name}"), 204)
            self.deleted.add(name)

    def expect(self, response, status):
        if response.status_code != status:
            self.failures.append(response.text)


def read_all(path):
    """What lies in the file: content of each message of each conversation; after a check of the whole."""
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        connection.execute("INSERT INTO message_search (message_search) VALUES ('integrity-check')")
        chats = {name: {} for (name,) in connection.execute("SELECT id FROM chats")}
        for chat, name, content in connection.execute("SELECT chat_id, id, content FROM messages"):
            chats[chat][name] = content
        return chats


def kill_while_writing(path, kills):
    confirmed, deleted = {}, set()
    for kill in range(kills):
        process, address = start(path)
        writers = [Writer(address, kill * WRITERS + i) for i in range(WRITERS)]
        for writer in writers:
            writer.start()
        while not any(writer.confirmed for writer in writers) and all(writer.is_alive() for writer in writers):
            time.sleep(0.005)
        time.sleep(random.Random(kill).uniform(0, 0.4))
        process.kill()
        process.join()
        for writer in writers:
            writer.join()
            assert not writer.failures
            confirmed |= writer.confirmed
            deleted |= writer.deleted
        there = read_all(path)
        assert not deleted & set(there)
        for name, messages in confirmed.items():
            assert messages.items() <= there[name].items()
    written = sum(map(len, confirmed.values()))
    print(
        f"{kills} kills, {len(confirmed)} conversations, {written} messages confirmed and there, {len(deleted)} deleted"
    )


def test_a_killed_server_keeps_what_it_confirmed(tmp_path):
    kill_while_writing(tmp_path / "chats.db", 5)


@pytest.mark.slow
def test_a_server_that_is_killed_fifty_times_keeps_what_it_confirmed(tmp_path):
    kill_while_writing(tmp_path / "chats.db", 50)
