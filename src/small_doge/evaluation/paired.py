"""Whether two models differ, from their scores on the same items."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


DRAWS = 10_000  # of the bootstrap
DRAWN_TOGETHER = 2_000_000  # numbers, which bounds the memory
LEVEL = 0.05
# Quantiles of the normal distribution: for a two-sided test at the level, and for being right in 80 of 100 cases.
Z_LEVEL, Z_POWER = 1.959964, 0.841621


@dataclass(frozen=True)
class PairedTest:
    """What the scores of two models on the same items say.

    Attributes:
        n: number of items.
        first: score of the first model.
        second: score of the second.
        difference: second minus first.
        low: lower end of the 95% interval of the difference, by the bootstrap.
        high: upper end.
        only_first: items that the first model alone has right; None where scores are not 0 or 1.
        only_second: the same of the second.
        p_value: of McNemar's exact test, that the models are equally good; None where scores are not 0 or 1, or where
            some items weigh more than others, which the test does not know.
        needed: items with which a difference of this size would be found in 80 of 100 cases; None if there is none.
        detectable: the difference that so many items find in 80 of 100 cases.
    """

    n: int
    first: float
    second: float
    difference: float
    low: float
    high: float
    only_first: int | None
    only_second: int | None
    p_value: float | None
    needed: int | None
    detectable: float

    @property
    def is_sure(self) -> bool:
        """Tell whether the models differ: the interval leaves out 0, and so few items by luck are less likely than 5%."""
        return (self.low > 0 or self.high < 0) and (self.p_value is None or self.p_value < LEVEL)

    @property
    def missing(self) -> int | None:
        """Count the items that are missing to tell a difference of this size; None where nothing differs."""
        return None if self.needed is None else max(0, self.needed - self.n)


def compare_pairs(
    parts: Sequence[tuple[np.ndarray, np.ndarray]], weights: Sequence[float], seed: int = 0
) -> PairedTest:
    """Compare two models by their scores on the same items.

    Args:
        parts: of each task, the scores [n] of the first and of the second model.
        weights: of the tasks in the score; they sum to 1.
        seed: of the bootstrap.
    """
    differences = [second - first for first, second in parts]
    n = sum(map(len, differences))
    difference = _weigh(weights, [d.mean() for d in differences])
    drawn, drawn_weights = _pool_single_items(differences, weights)
    low, high = bootstrap(drawn, drawn_weights, seed)
    is_binary = all(np.isin(scores, (0, 1)).all() for part in parts for scores in part)
    only_first = sum(int((d < 0).sum()) for d in differences) if is_binary else None
    only_second = sum(int((d > 0).sum()) for d in differences) if is_binary else None
    weigh_alike = np.allclose(weights, [len(d) / n for d in differences])
    spread = _find_detectable(drawn, drawn_weights)
    return PairedTest(
        n=n,
        first=_weigh(weights, [first.mean() for first, _ in parts]),
        second=_weigh(weights, [second.mean() for _, second in parts]),
        difference=difference,
        low=low,
        high=high,
        only_first=only_first,
        only_second=only_second,
        p_value=compute_mcnemar(only_first, only_second) if is_binary and weigh_alike else None,
        needed=math.ceil(n * (spread / difference) ** 2) if abs(difference) > 1e-12 else None,
        detectable=spread,
    )


def _weigh(weights: Sequence[float], values: Sequence[float]) -> float:
    return float(sum(weight * value for weight, value in zip(weights, values, strict=True)))


def _pool_single_items(
    differences: Sequence[np.ndarray], weights: Sequence[float]
) -> tuple[list[np.ndarray], list[float]]:
    """Make one group of the groups of a single item, whose spread can't be known from themselves.

    A lone one joins the smallest other group. Items are scaled so that each keeps its weight.
    """
    order = sorted(range(len(differences)), key=lambda place: len(differences[place]))
    singles = sum(len(values) == 1 for values in differences)
    pooled, others = order[: max(2, singles)] if singles else [], order[max(2, singles) if singles else 0 :]
    found, found_weights = [differences[place] for place in others], [weights[place] for place in others]
    if pooled:
        n = sum(len(differences[place]) for place in pooled)
        scaled = [differences[place] * (weights[place] * n / len(differences[place])) for place in pooled]
        found, found_weights = [*found, np.concatenate(scaled)], [*found_weights, 1.0]
    return found, found_weights


def compute_mcnemar(only_first: int, only_second: int) -> float:
    """Compute the p-value of McNemar's exact test, two-sided: of the items that one model alone has right, half are each's.

    McNemar (1947), Psychometrika 12; with the binomial distribution in place of its approximation.
    """
    n, few = only_first + only_second, min(only_first, only_second)
    term = total = 1
    for k in range(few):  # whole numbers: nothing is rounded, however small the result is
        term = term * (n - k) // (k + 1)
        total += term
    return min(1.0, 2 * total / 2**n)


def bootstrap(differences: Sequence[np.ndarray], weights: Sequence[float], seed: int) -> tuple[float, float]:
    """Draw items again, with replacement and task by task; return the 95% interval of the weighted mean difference.

    Means of n drawn items spread by sqrt((n - 1) / n) too little, which is made up for. A single item has no spread: alone,
    it gets all that scores of 0 to 1 allow.

    Args:
        differences: of each task, between the scores of the two models on each item.
        weights: of the tasks.
        seed: of the draws.
    """
    random = np.random.default_rng(seed)
    means = np.zeros(DRAWS)
    if len(differences) == 1 and len(differences[0]) == 1:
        return -1.0, 1.0
    for values, weight in zip(differences, weights, strict=True):
        # Equal values are drawn together: how often each comes is what matters.
        distinct, counts = np.unique(values, return_counts=True)
        size = max(1, DRAWN_TOGETHER // len(distinct))
        widening = math.sqrt(len(values) / max(1, len(values) - 1))
        for start in range(0, DRAWS, size):
            stop = min(DRAWS, start + size)
            drawn = random.multinomial(len(values), counts / len(values), size=stop - start)
            deviations = drawn @ distinct / len(values) - values.mean()
            means[start:stop] += weight * (values.mean() + widening * deviations)
    low, high = np.quantile(means, [LEVEL / 2, 1 - LEVEL / 2])
    return float(low), float(high)


def _find_detectable(differences: Sequence[np.ndarray], weights: Sequence[float]) -> float:
    """Return the difference that is found in 80 of 100 cases, by the variance of the items' differences.

    Connor (1987), Biometrics 43, for 0 and 1; the same with means of squares for other scores.
    """
    equal = different = 0.0
    for values, weight in zip(differences, weights, strict=True):
        square = float((values**2).mean())
        equal += weight**2 * square / len(values)  # the variance if the models were equally good
        different += weight**2 * (square - float(values.mean()) ** 2) / len(values)
    return Z_LEVEL * math.sqrt(equal) + Z_POWER * math.sqrt(max(different, 0.0))


def adjust_by_holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for their number (Holm 1979): with all models equal, one below 5% then comes in 5% of comparisons."""
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = highest
    return adjusted
