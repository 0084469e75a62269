"""Statistics of a comparison, over subjects: NumPy arrays in, numbers out.

Pairs share subjects and are not independent. Means are over subjects: of each, the mean over the
pairs in which it is the fixed one. Where a subject is in several pairs, as the fixed or the moving
one, intervals and p values of a difference allow for that (`shared_difference`). p values are
two-sided and for one comparison each, not corrected for the number of losses that are compared.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import stats

RESAMPLES = 10_000
"""Bootstrap resamples of the subjects."""


class Difference(NamedTuple):
    """A run against the reference run, over the subjects of both.

    Attributes:
        mean: mean difference, in the units of what is compared; above 0 the run is higher.
        low: lower end of the 95 % interval of that mean; NaN where it cannot be known.
        high: upper end.
        p: two-sided p that the mean is 0.
    """

    mean: float
    low: float
    high: float
    p: float


def over_subjects(
    values: Float[np.ndarray, "*l p"], fixed: Sequence[str]
) -> Float[np.ndarray, "*l u"]:
    """Mean over the pairs with the same fixed subject, subjects sorted by name.

    `fixed` names the fixed subject of each pair. NaN values are left out of a mean; a subject with
    no other value is NaN.
    """
    subjects = sorted(set(fixed))
    member = np.array([[name == subject for name in fixed] for subject in subjects], float)
    known = ~np.isnan(values)
    count = known @ member.T
    total = np.where(known, values, 0) @ member.T
    return np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0)


def mean_known(values: Float[np.ndarray, " n"]) -> float:
    """Mean of the values that are not NaN; NaN where there is none."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


def standard_deviation(values: Float[np.ndarray, " n"]) -> float:
    """Standard deviation with n − 1 below the line; NaN below two values."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")


def best_index(scores: Float[np.ndarray, " l"]) -> int:
    """Where the largest score stands; among equals the last, which is the smoothest along λ."""
    return int(np.flatnonzero(scores == np.max(scores))[-1])


def paired_difference(
    values: Float[np.ndarray, " p"],
    reference: Float[np.ndarray, " p"],
    pairs: Sequence[tuple[str, str]],
) -> Difference:
    """`values` minus `reference`, pair by pair, both in [0, 1]; `pairs` are (fixed, moving).

    Where no subject is in two pairs they are independent: a bootstrap interval and Wilcoxon's test.
    Else what `shared_difference` gives. NaN values are left out.
    """
    # What is below 1e-9 is the rounding of means, and would make a zero or a tie look like none.
    differences = np.round(values - reference, 9)
    known = ~np.isnan(differences)
    differences = differences[known]
    pairs = [pair for pair, there in zip(pairs, known, strict=True) if there]
    subjects = [subject for pair in pairs for subject in pair]
    if len(set(subjects)) < len(subjects):
        return shared_difference(differences, pairs)
    low, high = bootstrap_interval(differences)
    return Difference(mean_known(differences), low, high, wilcoxon_p(differences))


def shared_difference(
    differences: Float[np.ndarray, " p"], pairs: Sequence[tuple[str, str]]
) -> Difference:
    """The mean over subjects, its 95 % interval and p, for pairs that share subjects.

    The variance of the mean adds the products of the residuals of any two pairs that share a
    subject in either role (Aronow, Samii, Assenova, Political Analysis 2015, eq. 4), enlarged by
    what the estimated mean takes away and by n / (n − 1), and at least that of independent pairs;
    the quantiles are Student's with n − 2 degrees of freedom for n subjects. Under simulated null
    effects of 18 subjects 2 to 7 % of the p values are below 0.05, for neighbours and for all pairs
    (experiments/null_p_values.py). NaN where every two pairs share a subject, as with three.
    """
    fixed = [pair[0] for pair in pairs]
    weights = 1 / (len(set(fixed)) * np.array([fixed.count(name) for name in fixed], float))
    mean = float(weights @ differences)
    names = sorted({subject for pair in pairs for subject in pair})
    member = np.array([[name in pair for name in names] for pair in pairs], float)
    together = weights[:, None] * weights * (member @ member.T > 0)
    nan, left, n = float("nan"), 1 - together.sum(), len(names)
    if left < 1e-9 or n < 4:
        return Difference(mean, nan, nan, nan)
    residuals = differences - mean
    independent = np.sum((weights * residuals) ** 2) / (1 - np.sum(weights**2))
    variance = residuals @ together @ residuals / left * n / (n - 1)
    error = float(np.sqrt(max(variance, independent)))
    if error == 0:
        return Difference(mean, mean, mean, float(mean == 0))
    student = stats.t(n - 2)
    wide = float(student.ppf(0.975)) * error
    return Difference(mean, mean - wide, mean + wide, float(2 * student.sf(abs(mean) / error)))


def bootstrap_interval(
    differences: Float[np.ndarray, " u"], *, confidence: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Bias-corrected and accelerated interval of the mean (Efron 1987), from resampled subjects.

    The seed is fixed: the same values give the same interval. NaN below two subjects; where all
    values are the same, that value twice. With a handful of subjects it is too narrow.
    """
    if len(differences) < 2:
        return float("nan"), float("nan")
    if np.ptp(differences) == 0:
        return float(differences[0]), float(differences[0])
    result = stats.bootstrap(
        (differences,),
        np.mean,
        n_resamples=RESAMPLES,
        confidence_level=confidence,
        method="BCa",
        rng=np.random.default_rng(seed),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def wilcoxon_p(differences: Float[np.ndarray, " u"]) -> float:
    """Two-sided p of Wilcoxon's signed-rank test that the differences lie around 0.

    Zeros say nothing of a direction and are dropped (Wilcoxon 1945); with none left p is 1, with no
    subject at all NaN. SciPy takes the exact distribution up to 50 untied differences. With n of
    them p is at least 2/2ⁿ: below six subjects it cannot reach 0.05, whatever the differences.
    """
    if len(differences) == 0:
        return float("nan")
    signed = differences[differences != 0]
    if len(signed) == 0:
        return 1.0
    result: Any = stats.wilcoxon(signed)
    return float(result.pvalue)
