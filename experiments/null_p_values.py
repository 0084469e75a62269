"""How often p is below 0.05 where there is no difference: pairs that share subjects, simulated.

    python experiments/null_p_values.py --subjects 18 --repeats 4000

The difference of a pair is an effect of the fixed subject, one of the moving subject and one of the
pair, all normal with mean 0. The former way took the mean of each fixed subject's pairs and
Wilcoxon's test over them.
"""

import argparse
import itertools

import numpy as np

from jaxreg.evaluation.statistics import over_subjects, shared_difference, wilcoxon_p

EFFECTS = {
    "fixed = moving": (1, 1, 1, 0.5),
    "fixed, moving apart": (1, 1, 0, 0.5),
    "half in common": (1, 1, 0.5, 1),
    "fixed alone": (1, 0, 0, 1),
    "moving alone": (0, 1, 0, 1),
    "pairs alone": (0, 0, 0, 1),
}
"""Standard deviations of fixed and moving effect, their correlation, that of the pair's own."""


def differences(random, index, effect):
    """One draw of the pairs' differences."""
    of_fixed, of_moving, correlation, own = effect
    first, second = random.standard_normal((2, index.max() + 1))
    second = correlation * first + np.sqrt(1 - correlation**2) * second
    noise = own * random.standard_normal(len(index))
    return of_fixed * first[index[:, 0]] + of_moving * second[index[:, 1]] + noise


def main():
    """A line for neighbours and for all ordered pairs under each kind of effect."""
    parser = argparse.ArgumentParser(description="False positives at 0.05.")
    parser.add_argument("--subjects", type=int, default=18)
    parser.add_argument("--repeats", type=int, default=4000)
    options = parser.parse_args()
    n, names = options.subjects, [f"{i:03d}" for i in range(options.subjects)]
    kinds = {
        "neighbours": [(i, (i + 1) % n) for i in range(n)],
        "all": list(itertools.permutations(range(n), 2)),
    }
    print("pairs\teffects\tformer\tpresent")
    for (kind, listed), (name, effect) in itertools.product(kinds.items(), EFFECTS.items()):
        random, index = np.random.default_rng(0), np.array(listed)
        pairs = [(names[i], names[j]) for i, j in listed]
        fixed = [pair[0] for pair in pairs]
        draws = [differences(random, index, effect) for _ in range(options.repeats)]
        former = [wilcoxon_p(over_subjects(d, fixed)) < 0.05 for d in draws]
        present = [shared_difference(d, pairs).p < 0.05 for d in draws]
        print(f"{kind}\t{name}\t{np.mean(former):.3f}\t{np.mean(present):.3f}", flush=True)


if __name__ == "__main__":
    main()
