"""Paired tests against enumeration, simulation and scipy."""

import itertools

import numpy as np
import pytest

from small_doge.evaluation.paired import adjust_by_holm, bootstrap, compare_pairs, compute_mcnemar


def pair(only_first, only_second, both=0, neither=0):
    first = [1] * only_first + [0] * only_second + [1] * both + [0] * neither
    second = [0] * only_first + [1] * only_second + [1] * both + [0] * neither
    return np.array(first, dtype=float), np.array(second, dtype=float)


def test_mcnemar_counts_all_ways_in_which_luck_could_share_the_items_out():
    for n in range(11):
        shares = [sum(way) for way in itertools.product((0, 1), repeat=n)]
        for first in range(n + 1):
            as_uneven = sum(abs(2 * share - n) >= abs(2 * first - n) for share in shares)
            assert compute_mcnemar(first, n - first) == pytest.approx(as_uneven / 2**n)


def test_mcnemar_is_scipys_binomial_test_for_many_items_too():
    stats = pytest.importorskip("scipy.stats")
    for first, second in ((3, 17), (480, 520), (1000, 1400), (0, 1), (0, 0), (7000, 7000)):
        expected = stats.binomtest(first, first + second).pvalue if first + second else 1.0
        assert compute_mcnemar(first, second) == pytest.approx(expected, rel=1e-9)
    assert compute_mcnemar(0, 2000) == pytest.approx(0.0, abs=1e-300)


def test_the_interval_is_that_of_drawing_the_items_again_one_by_one():
    differences = np.array([1.0] * 12 + [-1.0] * 4 + [0.0] * 34)
    random = np.random.default_rng(1)
    means = random.choice(differences, size=(20_000, 50)).mean(axis=1)
    low, high = np.quantile((means - 0.16) * (50 / 49) ** 0.5 + 0.16, [0.025, 0.975])
    assert bootstrap([differences], [1.0], seed=0) == pytest.approx((low, high), abs=0.021)


def test_tasks_are_drawn_each_by_itself_and_weigh_as_told():
    even, odd = np.array([1.0] * 200), np.array([1.0, -1.0] * 200)
    low, high = bootstrap([even, odd], [0.5, 0.5], seed=0)
    spread = 1.96 * 0.5 / 400**0.5
    assert (low, high) == pytest.approx((0.5 - spread, 0.5 + spread), abs=0.006)


def test_groups_of_one_item_each_are_drawn_as_one():
    first, second = pair(10, 12, 20, 15)  # 57 subjects, an item of each
    alone = compare_pairs([(first[[i]], second[[i]]) for i in range(57)], [1 / 57] * 57)
    together = compare_pairs([(first, second)], [1.0])
    assert alone.low < -0.1 and alone.high > 0.15 and alone.p_value == together.p_value
    assert (alone.low, alone.high) == pytest.approx((together.low, together.high), abs=0.02)
    assert alone.needed == together.needed and not alone.is_sure


def test_a_lone_item_joins_another_group_and_by_itself_says_nothing():
    first, second = pair(3, 3, 10, 4)
    test = compare_pairs([(first, second), (np.array([0.2]), np.array([0.9]))], [0.5, 0.5])
    assert test.difference == pytest.approx(0.35) and test.low < 0 < test.high
    one = compare_pairs([(np.array([0.2]), np.array([0.9]))], [1.0])
    assert (one.low, one.high) == (-1, 1) and not one.is_sure


def test_the_interval_of_groups_of_two_holds_the_truth_in_95_of_100_cases():
    random, held = np.random.default_rng(0), 0
    for _ in range(200):
        groups = list(random.normal(0, 1, (20, 2)))
        low, high = bootstrap(groups, [1 / 20] * 20, seed=1)
        held += low <= 0 <= high
    assert held / 200 > 0.9  # by deviations that are not widened it is less


def test_mcnemar_is_not_asked_where_items_weigh_differently():
    parts = [pair(700, 500, 500, 500), pair(10, 60, 0, 30)]  # pooled, the first has more right; weighted, the second
    test = compare_pairs(parts, [0.5, 0.5])
    assert test.difference > 0 and test.only_first > test.only_second
    assert test.p_value is None and test.is_sure == (test.low > 0)
    assert compare_pairs(parts, [2200 / 2300, 100 / 2300]).p_value is not None


def test_a_clear_difference_is_told_and_a_doubtful_one_is_not():
    clear = compare_pairs([pair(10, 60, 100, 100)], [1.0])
    assert clear.is_sure and clear.difference == pytest.approx(50 / 270) and clear.missing == 0
    doubtful = compare_pairs([pair(10, 14, 100, 100)], [1.0])
    assert not doubtful.is_sure and doubtful.low < 0 < doubtful.high and doubtful.missing > 1000
    assert (doubtful.only_first, doubtful.only_second) == (10, 14)


def test_equal_scores_have_no_number_of_items_that_tells_them_apart():
    equal = compare_pairs([pair(5, 5, 10)], [1.0])
    assert equal.p_value == 1 and equal.needed is None and not equal.is_sure and equal.detectable > 0
    same = compare_pairs([pair(0, 0, 10, 10)], [1.0])
    assert same.low == same.high == 0 and not same.is_sure


def test_scores_between_0_and_1_have_no_counts_but_an_interval():
    random = np.random.default_rng(0)
    first = random.random(300)
    test = compare_pairs([(first, np.clip(first + random.normal(0.05, 0.1, 300), 0, 1))], [1.0])
    assert test.p_value is None and test.only_first is None and test.is_sure and test.low > 0


def test_with_as_many_items_as_are_needed_four_of_five_comparisons_tell():
    small = compare_pairs([pair(30, 40, 80, 50)], [1.0])
    random, told, tried = np.random.default_rng(0), 0, 300
    for _ in range(tried):
        counts = random.multinomial(small.needed, np.array([30, 40, 80, 50]) / 200)
        first, second = int(counts[0]), int(counts[1])
        told += compute_mcnemar(first, second) < 0.05 and second > first
    assert told / tried == pytest.approx(0.8, abs=0.07)


def test_holms_correction_multiplies_the_smallest_by_their_number_and_keeps_the_order():
    assert adjust_by_holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert adjust_by_holm([0.6, 0.9]) == [1.0, 1.0] and adjust_by_holm([]) == []
