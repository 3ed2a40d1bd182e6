"""What a score says about a model: its error, its interval, and whether guessing would reach it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


Z = 1.96  # of a 95% interval


@dataclass(frozen=True)
class Estimate:
    """A share of right answers, as far as it is known.

    Attributes:
        score: the share.
        stderr: its standard error.
        low: lower end of the 95% interval.
        high: upper end.
        chance: what guessing reaches.
        n: number of items.
    """

    score: float
    stderr: float
    low: float
    high: float
    chance: float
    n: int

    @property
    def covers_chance(self) -> bool:
        """Tell whether guessing explains the score as well: the interval holds the chance level."""
        return self.low <= self.chance <= self.high

    @property
    def says_something(self) -> bool:
        """Tell whether the whole interval lies above chance."""
        return self.low > self.chance


def estimate(scores: Sequence[float], chances: Sequence[float]) -> Estimate:
    """Estimate a share from items that are right (1) or wrong (0), with Wilson's interval, which holds near 0 and 1 too.

    Args:
        scores: of the items; at least one.
        chances: of each item to be right by guessing.
    """
    n = len(scores)
    score = sum(scores) / n
    stderr = math.sqrt(score * (1 - score) / (n - 1)) if n > 1 else math.nan
    return Estimate(score, stderr, *_find_interval(score, n), sum(chances) / n, n)


def estimate_groups(groups: Sequence[tuple[Sequence[float], Sequence[float]]]) -> Estimate:
    """Estimate the mean of the shares of several groups of items, each with the same weight, such as MMLU's subjects.

    The interval is Wilson's for as many items as would leave the same error if all groups were equally hard, which is a
    little wide, and holds for groups of one item too.

    Args:
        groups: the scores and chances of each.
    """
    if len(groups) == 1:
        return estimate(*groups[0])
    count = len(groups)
    score = sum(sum(scores) / len(scores) for scores, _ in groups) / count
    chance = sum(sum(chances) / len(chances) for _, chances in groups) / count
    weight = count**2 / sum(1 / len(scores) for scores, _ in groups)
    stderr = math.sqrt(score * (1 - score) / (weight - 1))
    return Estimate(score, stderr, *_find_interval(score, weight), chance, sum(len(scores) for scores, _ in groups))


def estimate_clusters(scores: Sequence[Sequence[float]], chances: Sequence[Sequence[float]]) -> Estimate:
    """Estimate a share from items that come in clusters, such as the instructions of a prompt, which are right together.

    The interval is Wilson's for as many independent items as would leave the same error.
    """
    n = sum(map(len, scores))
    score = sum(map(sum, scores)) / n
    rest = sum((sum(cluster) - score * len(cluster)) ** 2 for cluster in scores)
    count = len(scores)
    stderr = math.sqrt(rest * count / (count - 1)) / n if count > 1 else math.nan
    # Where all are right or all wrong, nothing tells how they hang together: each cluster counts once.
    independent = min(n, score * (1 - score) / stderr**2) if stderr > 0 else count
    return Estimate(score, stderr, *_find_interval(score, independent), sum(map(sum, chances)) / n, n)


def estimate_mean(values: Sequence[float], chance: float = 0.0) -> Estimate:
    """Estimate a mean of numbers that are no shares, such as nats."""
    n = len(values)
    mean = sum(values) / n
    stderr = math.sqrt(sum((value - mean) ** 2 for value in values) / (n - 1) / n) if n > 1 else math.nan
    half = Z * stderr if n > 1 else math.inf
    return Estimate(mean, stderr, mean - half, mean + half, chance, n)


def _find_interval(score: float, n: float) -> tuple[float, float]:
    """Return Wilson's 95% interval of a share of n items."""
    middle = (score + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z * math.sqrt(score * (1 - score) / n + Z * Z / (4 * n * n)) / (1 + Z * Z / n)
    # Rounding must not lift the end off the score where nothing, or everything, is right.
    return (0.0 if score == 0 else max(0.0, middle - half)), (1.0 if score == 1 else min(1.0, middle + half))


def average(parts: Sequence[Estimate]) -> Estimate:
    """Average the scores of several tasks, each with the same weight."""
    if len(parts) == 1:
        return parts[0]
    count = len(parts)
    score = sum(part.score for part in parts) / count
    stderr = math.sqrt(sum(part.stderr**2 for part in parts)) / count
    below = math.sqrt(sum((part.score - part.low) ** 2 for part in parts)) / count
    above = math.sqrt(sum((part.high - part.score) ** 2 for part in parts)) / count
    return Estimate(
        score, stderr, score - below, score + above, sum(p.chance for p in parts) / count, sum(p.n for p in parts)
    )
