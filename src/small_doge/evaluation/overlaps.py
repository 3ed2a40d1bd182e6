"""Runs of words that texts share with evaluation items, found by hashes of the runs and checked word by word."""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import xxhash


# Words of a run that is compared, as in the appendix of GPT-3's paper (arXiv:2005.14165).
RUN = 13
# Words of a question and its answer; fewer stand in too many texts to mean anything.
LEAST_WORDS = 6
# A question of so many words is looked for by itself, a shorter one with its answer at most so many words away.
ENOUGH_WORDS = 8
NEAR_WORDS = 50
# Items of a task that share a run, beyond which it is the task's wording and no item's own.
MOST_ITEMS = 3
KNOWN_WORDS = 1_000_000  # whose hashes are kept
# Of a script without spaces each letter is a word.
_WORDS = re.compile(
    r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af]|[^\W_\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af]+"
)
# Of a polynomial over the hashes of words, modulo 2^64; its sums for all lengths of runs are made in one pass.
_POWERS = np.array([pow(0x9E3779B97F4A7C15, place, 1 << 64) for place in range(RUN)], dtype=np.uint64)


@dataclass
class Item:
    """An evaluation item as words.

    Attributes:
        task: name of its task.
        id: name of the item.
        text: the question, for people.
        question: its words.
        answer: words of the right answer.
        runs: places in `words` at which the runs to look for start; none if the item can't be looked for.
        found: of these, those that texts have.
    """

    task: str
    id: str
    text: str
    question: list[str]
    answer: list[str]
    runs: list[int] = field(default_factory=list)
    found: set[int] = field(default_factory=set)

    @property
    def words(self) -> list[str]:
        """Return question and answer."""
        return self.question + self.answer

    @property
    def is_short(self) -> bool:
        """Tell whether the question is looked for as a whole, with its answer near."""
        return len(self.question) < RUN

    @property
    def run_length(self) -> int:
        """Return the words of a run: all of a short question."""
        return len(self.question) if self.is_short else RUN

    @property
    def share(self) -> float:
        """Return the share of its runs that texts have."""
        return len(self.found) / len(self.runs) if self.runs else 0.0


@dataclass(frozen=True)
class Hit:
    """A run of an item in a text.

    Attributes:
        item: number of the item.
        run: place in the item's words.
        place: in the text's words.
    """

    item: int
    run: int
    place: int


def split_words(text: str) -> list[str]:
    """Split a text into words without case, punctuation and forms of letters that look alike."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return _WORDS.findall(text.casefold())


class OverlapIndex:
    """Runs of words of items, to be found in texts.

    Args:
        items: whose `runs` are filled in here.

    Attributes:
        num_common: runs that are not looked for, because more than `MOST_ITEMS` items of a task share them.
    """

    def __init__(self, items: Sequence[Item]) -> None:
        self.items = items
        self.hashes: dict[str, int] = {}
        self.num_common = 0
        hashed = [self._hash_runs(item) for item in items]
        owners: Counter[tuple[str, int]] = Counter()
        for item, runs in zip(items, hashed, strict=True):
            owners.update((item.task, run) for run in set(runs))
        entries: dict[int, list[tuple[int, int, int]]] = defaultdict(list)  # (hash, item, place) by length
        for number, (item, runs) in enumerate(zip(items, hashed, strict=True)):
            for place, run in enumerate(runs):
                if owners[item.task, run] > MOST_ITEMS:
                    self.num_common += 1
                    continue
                item.runs.append(place)
                entries[item.run_length].append((run, number, place))
        self.tables = {length: _make_table(found) for length, found in entries.items()}

    def find(self, words: Sequence[str]) -> Iterator[Hit]:
        """Yield the runs of items that stand in a text, in no order."""
        if not self.tables:
            return
        hashed = self._hash_words(words)
        sums = np.zeros(len(words) + 1, dtype=np.uint64)
        for length in range(1, max(self.tables) + 1):
            if length > len(words):
                return
            sums = sums[:-1] + hashed[length - 1 :] * _POWERS[length - 1]
            if length in self.tables:
                yield from self._look_up(words, sums, length)

    def _look_up(self, words: Sequence[str], sums: np.ndarray, length: int) -> Iterator[Hit]:
        """Yield the runs of one length."""
        keys, numbers, places = self.tables[length]
        first = np.searchsorted(keys, sums, side="left")
        candidates = np.flatnonzero(keys[np.minimum(first, len(keys) - 1)] == sums)
        for place in candidates.tolist():
            entry = int(first[place])
            while entry < len(keys) and keys[entry] == sums[place]:
                item, run = self.items[numbers[entry]], int(places[entry])
                same = item.words[run : run + length] == list(words[place : place + length])
                if same and (not item.is_short or _has_answer_near(item, words, place)):
                    yield Hit(int(numbers[entry]), run, place)
                entry += 1

    def _hash_runs(self, item: Item) -> list[int]:
        """Hash the runs to look for: a short question as a whole, or all runs of question and answer."""
        words, length = item.words, item.run_length
        if len(words) < LEAST_WORDS or not length:
            return []
        hashed = self._hash_words(words)
        count = 1 if item.is_short else len(words) - length + 1
        sums = np.zeros(count, dtype=np.uint64)
        for offset in range(length):
            sums += hashed[offset : offset + count] * _POWERS[offset]
        return sums.tolist()

    def _hash_words(self, words: Sequence[str]) -> np.ndarray:
        known = self.hashes
        if len(known) > KNOWN_WORDS:
            known.clear()
        found = np.empty(len(words), dtype=np.uint64)
        for place, word in enumerate(words):
            value = known.get(word)
            if value is None:
                value = known[word] = xxhash.xxh64_intdigest(word.encode())
            found[place] = value
        return found


def _make_table(entries: list[tuple[int, int, int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return hashes in their order, and the item and place of each."""
    hashes, numbers, places = zip(*sorted(entries), strict=True)
    return np.array(hashes, dtype=np.uint64), np.array(numbers), np.array(places)


def _has_answer_near(item: Item, words: Sequence[str], place: int) -> bool:
    """Tell whether the answer of a short question stands near it, where the question alone does not tell enough."""
    if not item.answer or len(item.question) >= ENOUGH_WORDS:
        return True
    end = place + len(item.question)
    near = [*words[max(0, place - NEAR_WORDS) : place], "", *words[end : end + NEAR_WORDS + len(item.answer)]]
    size = len(item.answer)
    return any(near[start : start + size] == item.answer for start in range(len(near) - size + 1))
