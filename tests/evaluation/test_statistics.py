"""Statistics over subjects against values worked out by hand, enumeration and SciPy."""

import itertools

import numpy as np
import pytest
from scipy import stats

from jaxreg.evaluation import statistics

RNG = np.random.default_rng(0)


def test_the_unit_is_the_mean_over_the_pairs_with_a_subject_fixed():
    fixed = ["b", "a", "b", "c", "a", "b"]
    dice = np.array([0.6, 0.1, 0.9, 0.5, 0.3, 0.3])
    by_hand = [(0.1 + 0.3) / 2, (0.6 + 0.9 + 0.3) / 3, 0.5]
    np.testing.assert_allclose(statistics.over_subjects(dice, fixed), by_hand, rtol=1e-14)
    stacked = statistics.over_subjects(np.stack([dice, 2 * dice]), fixed)
    np.testing.assert_allclose(stacked, [by_hand, [2 * v for v in by_hand]], rtol=1e-14)


def test_a_subject_counts_once_however_many_pairs_it_has():
    fixed = ["a"] * 9 + ["b"]
    dice = np.array([0.0] * 9 + [1.0])
    assert statistics.over_subjects(dice, fixed).mean() == 0.5


def test_what_is_not_known_is_left_out():
    nan = np.nan
    values = np.array([1.0, nan, nan, 4.0])
    grouped = statistics.over_subjects(values, ["a", "a", "b", "c"])
    np.testing.assert_array_equal(grouped, [1, nan, 4])
    assert statistics.mean_known(grouped) == 2.5
    assert np.isnan(statistics.mean_known(np.array([nan])))


def test_a_tie_is_decided_for_the_smoother_warp():
    assert statistics.best_index(np.array([0.1, 0.7, 0.7, 0.2])) == 2
    assert statistics.best_index(np.array([0.9, 0.7, 0.8])) == 0


def test_spread_over_subjects_has_n_minus_one_below_the_line():
    assert statistics.standard_deviation(np.array([1.0, 3.0])) == pytest.approx(2**0.5)
    assert np.isnan(statistics.standard_deviation(np.array([1.0])))


@pytest.mark.parametrize(
    ("differences", "p"),
    [
        ([1, 2, 3, 4, 5, 6], 2 / 2**6),  # all of six positive: the least that six can give
        ([-1, -2, -3, -4, -5, -6], 2 / 2**6),
        ([1, 2, 3, 4, 5], 2 / 2**5),  # five: 0.0625, above 0.05 whatever they are
        ([1, 0, 2, 0, 3, 4, 5, 0, 6], 2 / 2**6),  # zeros are dropped
        ([0.3], 1.0),
        ([0.0, 0.0, 0.0], 1.0),
    ],
)
def test_known_p_values(differences, p):
    assert statistics.wilcoxon_p(np.array(differences, float)) == pytest.approx(p, rel=1e-12)


def test_p_is_the_share_of_sign_patterns_that_are_as_extreme():
    differences = RNG.normal(0.3, 1, 9)
    ranks = stats.rankdata(np.abs(differences))
    middle = ranks.sum() / 2
    observed = abs(ranks[differences > 0].sum() - middle)
    sums = [np.dot(signs, ranks) for signs in itertools.product((0, 1), repeat=9)]
    p = np.mean([abs(s - middle) >= observed - 1e-9 for s in sums])
    assert statistics.wilcoxon_p(differences) == pytest.approx(p, rel=1e-12)
    assert statistics.wilcoxon_p(-differences) == pytest.approx(p, rel=1e-12)


@pytest.mark.parametrize("count", [7, 14, 60])
def test_tied_differences_give_a_p_and_no_warning(count):
    p = statistics.wilcoxon_p(np.round(RNG.normal(0, 1, count)))
    assert 0 < p <= 1


def test_nobody_gives_no_p():
    assert np.isnan(statistics.wilcoxon_p(np.zeros(0)))


def test_the_interval_is_that_of_a_t_test_where_that_holds():
    values = RNG.normal(0.02, 0.01, 200)
    low, high = statistics.bootstrap_interval(values)
    t = stats.t.interval(0.95, 199, values.mean(), stats.sem(values))
    # Normal values and n = 200: both intervals are the same up to the Monte-Carlo error of the
    # 2.5 % quantile from 10,000 resamples (2.5 % of a standard error) and O(1/n) skewness.
    np.testing.assert_allclose([low, high], t, atol=0.08 * stats.sem(values))
    assert (low, high) == statistics.bootstrap_interval(values)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_few_subjects_give_an_interval_between_their_extremes(count):
    values = RNG.normal(0, 1, count)
    low, high = statistics.bootstrap_interval(values)
    assert values.min() <= low <= values.mean() <= high <= values.max() and low < high


def test_equal_differences_and_single_ones_are_degenerate():
    assert statistics.bootstrap_interval(np.full(4, 0.25)) == (0.25, 0.25)
    assert np.isnan(statistics.bootstrap_interval(np.array([0.25]))).all()


def test_a_difference_is_positive_where_the_run_is_higher():
    reference = RNG.random(6)
    steps = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    pairs = [(f"a{i}", f"b{i}") for i in range(6)]  # no subject twice
    difference = statistics.paired_difference(reference + steps, reference, pairs)
    assert difference.mean == pytest.approx(0.35)
    assert 0.1 <= difference.low < 0.35 < difference.high <= 0.6
    assert difference.p == pytest.approx(0.03125, rel=1e-12)
    swapped = statistics.paired_difference(reference, reference + steps, pairs)
    assert swapped.mean == pytest.approx(-0.35) and swapped.p == difference.p


def test_rounding_errors_are_no_differences():
    values = RNG.random(7)
    pairs = [(f"a{i}", f"b{i}") for i in range(7)]
    difference = statistics.paired_difference(values * 3 / 3 + 1e-16, values, pairs)
    assert difference == (0.0, 0.0, 0.0, 1.0)


def ring(count):
    names = [f"{i:02d}" for i in range(count)]
    return list(zip(names, [*names[1:], names[0]], strict=True))


def every_pair(count):
    return list(itertools.permutations([f"{i:02d}" for i in range(count)], 2))


@pytest.mark.parametrize("pairs", [ring(7), every_pair(5), every_pair(6)[:-4]])
def test_the_variance_adds_the_products_of_pairs_that_share_a_subject(pairs):
    differences = RNG.normal(0.1, 1, len(pairs))
    weight = {f: 1 / sum(g == f for g, _ in pairs) for f, _ in pairs}
    total = sum(weight[f] for f, _ in pairs)
    weights = [weight[f] / total for f, _ in pairs]
    mean = sum(w * d for w, d in zip(weights, differences, strict=True))
    variance, left = 0.0, 1.0
    rows = list(zip(pairs, weights, differences, strict=True))
    for (p, u, d), (q, v, e) in itertools.product(rows, repeat=2):
        if set(p) & set(q):
            variance += u * v * (d - mean) * (e - mean)
            left -= u * v
    n = len({s for pair in pairs for s in pair})
    apart = sum((u * (d - mean)) ** 2 for u, d in zip(weights, differences, strict=True))
    apart /= 1 - sum(u**2 for u in weights)
    error = max(variance / left * n / (n - 1), apart) ** 0.5
    found = statistics.paired_difference(differences, np.zeros(len(pairs)), pairs)
    assert found.mean == pytest.approx(mean, abs=1e-8)
    assert found.p == pytest.approx(2 * stats.t.sf(abs(mean) / error, n - 2), rel=1e-6)
    low, high = stats.t.interval(0.95, n - 2, mean, error)
    np.testing.assert_allclose([found.low, found.high], [low, high], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("pairs", [ring(18), every_pair(18)], ids=["neighbours", "all"])
def test_false_positives_are_near_five_percent_where_subjects_have_effects(pairs):
    """The null is simulated; the former test of subject means found 16 % and 33 % here."""
    random = np.random.default_rng(1)
    index = np.array([[int(name) for name in pair] for pair in pairs])
    rejected = []
    for _ in range(400):
        effect = random.standard_normal(18)
        difference = effect[index].sum(axis=1) + 0.5 * random.standard_normal(len(pairs))
        rejected.append(statistics.shared_difference(difference, pairs).p < 0.05)
    # 400 draws of 5 % have a standard error of 1.1 %.
    assert 0.015 < np.mean(rejected) < 0.09


def test_three_subjects_who_all_share_give_no_p():
    found = statistics.paired_difference(np.array([0.1, 0.2, 0.4]), np.zeros(3), ring(3))
    assert found.mean == pytest.approx(0.7 / 3) and np.isnan(found.p) and np.isnan(found.low)
