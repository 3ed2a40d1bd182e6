"""A mix that is never on disk: rows as they are read, from any position, in flat memory."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset

from ..utils.errors import UserError
from ..utils.logging import get_logger
from .mix_reader import MixReader, Position, choose_source, share_out
from .packing import Row
from .report import Report, describe_failures, keep_failures, tell_losses


logger = get_logger(__name__)


class MixedStream(IterableDataset):
    """The rows that `prepare` would write, in the same order, made as they are asked for.

    Its position is a few numbers a source: see `state_dict`. Going on from one reads again no more than the block that a
    source stands in, at most 4,096 documents.

    Args:
        reader: reader of the mix.
        side_file: keeps the rows that can't be used, with their reasons.
    """

    def __init__(self, reader: MixReader, side_file: Path | None = None) -> None:
        self.reader, self.side_file = reader, side_file
        total = reader.config.total_sample_size
        self.reports = [Report() for _ in reader.names]
        self.test_rows = [self._as_dict(row, name) for row, name in reader.find_test_rows()]
        self.counts = [-1] * len(reader.names) if total == -1 else share_out(total, reader.ratios)
        self._told: dict[int, set[str]] = {}  # kinds of losses that were said of each source
        self._state = self._start()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield rows from the present position to the end of the mix; the position moves along."""
        for row, state in self.iterate_with_states():
            self._state = state
            yield row

    def iterate_with_states(self) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """Yield each row with the state after it."""
        taken, positions = list(self._state["taken"]), [Position(*p) for p in self._state["positions"]]
        ended = list(self._state["ended"])
        readers = [self._read_source(i, position) for i, position in enumerate(positions)]
        ratios = self.reader.ratios
        while alive := [i for i, done in enumerate(ended) if not done and taken[i] != self.counts[i]]:
            index = choose_source(ratios, taken, alive)
            found = next(readers[index], None)
            if found is None:
                ended[index] = True
                continue
            row, positions[index] = found
            taken[index] += 1
            state = {"taken": list(taken), "positions": [list(p) for p in positions], "ended": list(ended)}
            yield self._as_dict(row, self.reader.names[index]), state

    def state_dict(self) -> dict[str, Any]:
        """Return the position: rows taken of each source, and where each stands."""
        return self._state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a position.

        Raises:
            ValueError: the position of another mix.
        """
        if not {"taken", "positions", "ended"} <= set(state) or len(state["taken"]) != len(self.counts):
            raise UserError(
                "the saved position in the data belongs to another mix: restore datasets_and_ratios, or start over"
            )
        self._state = state

    def rewind(self) -> None:
        """Go back to the first row."""
        self._state = self._start()

    def _start(self) -> dict[str, Any]:
        sources = len(self.counts)
        return {"taken": [0] * sources, "positions": [list(Position())] * sources, "ended": [False] * sources}

    def _read_source(self, index: int, start: Position) -> Iterator[tuple[Row, Position]]:
        """Yield rows of a source from a position; again from its start if more are wanted than it has."""
        shards, position, found = self.reader.shards[index], start, start != Position()
        while True:
            for shard in shards[position.shard :]:
                report = self.reports[index] if position.turn == 0 else Report()
                for row, following in self.reader.read_shard(shard, report, position):
                    found = True
                    yield row, following
                if position.turn == 0:
                    self._tell_failures(index)
                position = Position(position.turn, shard.number + 1)
            if not found:
                report = self.reports[index]
                why = (
                    "none of its tokens is learnt; raise max_length" if report.unlearnt else describe_failures(report)
                )
                raise UserError(f"data set {self.reader.names[index]!r} has no usable row: {why}")
            if self.counts[index] == -1:
                return
            position = Position(position.turn + 1)

    def _tell_failures(self, index: int) -> None:
        report = self.reports[index]
        self.reader.check_failures(index, report, whole=False)
        if self.side_file is not None:
            keep_failures(self.side_file, self.reports)
        kinds = {kind for kind in ("failed", "cut", "skipped", "unlearnt") if getattr(report, kind)}
        if kinds - self._told.get(index, set()):
            self._told[index] = kinds
            name, limit = self.reader.names[index], self.reader.config.max_length
            tell_losses(name, report, limit, self.side_file, so_far=True)

    def _as_dict(self, row: Row, source: str) -> dict[str, Any]:
        if row.tokens is None:
            return {**row.fields, "source": source}
        columns: dict[str, Any] = {"input_ids": row.tokens, "seq_lengths": row.lengths}
        if self.reader.config.row_format == "conversation":
            columns["labels"] = row.labels
        return {**columns, "source": source}


class _Batches(IterableDataset):
    """This process's part of each batch, with the position after the whole of it."""

    def __init__(self, stream: MixedStream, rows: int, rank: int, world: int, collate: Callable, turns: int) -> None:
        self.stream, self.rows, self.rank, self.world = stream, rows, rank, world
        self.collate, self.turns = collate, turns

    def __iter__(self) -> Iterator[tuple[dict[str, torch.Tensor], dict[str, Any]]]:
        waiting: list[dict] = []
        for turn in range(self.stream.state_dict().get("turn", 0), self.turns):
            for row, state in self.stream.iterate_with_states():
                waiting.append(row)
                if len(waiting) == self.rows * self.world:
                    mine = waiting[self.rank * self.rows : (self.rank + 1) * self.rows]
                    yield self.collate(mine), {**state, "turn": turn}
                    waiting = []
            self.stream.rewind()


class StreamLoader:
    """Batches of a stream, one after the other, for any number of processes.

    Every process reads the whole stream and keeps its part of each batch, so the position is the same in all of them and a
    run may go on with another number of processes. Batches that were fetched ahead but not trained on do not count: the
    position after each batch travels with it.

    Args:
        stream: of rows.
        rows: of a batch on one process.
        rank: of this process.
        world: number of processes.
        collate: makes tensors of rows.
        turns: how often the mix is gone through.
        fetch_ahead: whether a process of its own prepares batches.
        first_step: of training, at which this loader begins.
    """

    def __init__(
        self,
        stream: MixedStream,
        rows: int,
        rank: int,
        world: int,
        collate: Callable,
        turns: int = 1,
        fetch_ahead: bool = False,
        first_step: int = 0,
    ) -> None:
        self.first_step = first_step
        self.dataset = stream
        self.batches = _Batches(stream, rows, rank, world, collate, turns)
        self.fetch_ahead = fetch_ahead
        self.given = 0
        self._states: dict[int, dict[str, Any]] = {0: stream.state_dict()}

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        # Its own generator: starting a loader would else draw from the one that dropout uses.
        loader = DataLoader(
            self.batches, batch_size=None, num_workers=int(self.fetch_ahead), generator=torch.Generator()
        )
        for batch, state in loader:
            self.given += 1
            self._states[self.given] = state
            yield batch
        self.dataset.rewind()  # a process that fetches ahead rewinds its own copy alone

    def state_after(self, batches: int) -> dict[str, Any]:
        """Return the position after that many batches of this loader; earlier ones are forgotten."""
        state = self._states[batches]
        self._states = {n: s for n, s in self._states.items() if n >= batches}
        return state
