"""Errors, intervals and chance levels of scores."""

import random

import pytest

from small_doge.evaluation.statistics import average, estimate, estimate_clusters, estimate_groups, estimate_mean


def test_an_interval_covers_chance_where_guessing_explains_the_score():
    few, many = (estimate([1.0] * (3 * k) + [0.0] * (7 * k), [0.25] * (10 * k)) for k in (1, 100))
    assert few.covers_chance and not few.says_something
    assert many.says_something and not many.covers_chance
    assert estimate([0.0] * 50, [0.0] * 50).covers_chance
    assert average([many, many]).stderr == pytest.approx(many.stderr / 2**0.5)


def test_items_that_are_right_together_count_less():
    rng = random.Random(0)
    together = [[float(rng.random() < 0.4)] * 4 for _ in range(100)]
    apart = [[float(rng.random() < 0.4) for _ in range(4)] for _ in range(100)]
    one, other = (estimate_clusters(scores, [[0.0] * 4] * 100) for scores in (together, apart))
    assert one.n == other.n == 400
    assert one.stderr == pytest.approx(estimate([row[0] for row in together], [0.0] * 100).stderr, rel=0.01)
    assert other.stderr < 0.7 * one.stderr and other.high - other.low < 0.7 * (one.high - one.low)
    assert estimate_clusters([[0.0, 0.0], [0.0]], [[0.0, 0.0], [0.0]]).low == 0


def test_groups_weigh_the_same_whatever_their_size():
    groups = [([1.0] * 100, [0.5] * 100), ([0.0] * 10, [0.0] * 10)]
    found = estimate_groups(groups)
    assert (found.score, found.chance, found.n) == (0.5, 0.25, 110)
    single = [([float(i % 4 == 0)], [0.25]) for i in range(60)]
    whole = estimate([scores[0] for scores, _ in single], [0.25] * 60)
    assert estimate_groups(single) == whole and estimate_groups(single[:1]).n == 1


def test_a_mean_of_numbers_has_an_interval_about_it():
    found = estimate_mean([1.0, 2.0, 3.0])
    assert found.score == 2 and found.low < 2 < found.high and found.stderr == pytest.approx(3**-0.5)
    assert estimate_mean([1.0]).covers_chance
