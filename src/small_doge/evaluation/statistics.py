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
    middle = (score + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z * math.sqrt(score * (1 - score) / n + Z * Z / (4 * n * n)) / (1 + Z * Z / n)
    low, high = max(0.0, middle - half), min(1.0, middle + half)
    # Rounding must not lift the end off the score where nothing, or everything, is right.
    low, high = (0.0 if score == 0 else low), (1.0 if score == 1 else high)
    return Estimate(score, stderr, low, high, sum(chances) / n, n)


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
