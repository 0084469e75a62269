"""Statistics of a comparison, over subjects: NumPy arrays in, numbers out.

Pairs share subjects and are not independent, so the unit is a subject: the mean over the pairs in
which that subject is the fixed one. A subject still appears as the moving one of other pairs, which
no test here accounts for. p values are two-sided and for one comparison each, not corrected for the
number of losses that are compared.
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
        low: lower end of the 95 % bootstrap interval of that mean; NaN below two subjects.
        high: upper end.
        p_wilcoxon: p of Wilcoxon's signed-rank test, see `wilcoxon_p`.
    """

    mean: float
    low: float
    high: float
    p_wilcoxon: float


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
    values: Float[np.ndarray, " u"], reference: Float[np.ndarray, " u"]
) -> Difference:
    """`values` minus `reference`, subject by subject, both in [0, 1]."""
    # What is below 1e-9 is the rounding of means, and would make a zero or a tie look like none.
    differences = np.round(values - reference, 9)
    low, high = bootstrap_interval(differences)
    return Difference(float(differences.mean()), low, high, wilcoxon_p(differences))


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
