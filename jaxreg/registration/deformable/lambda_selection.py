"""λ from the pair itself: `--lam auto`.

Similarity rises as λ falls, whether or not the anatomy is matched any better, so the λ of the best
similarity is always the roughest. The rule: of the attainable gain in similarity (from none to the
best of the sweep) the first part is cheap and the last part is bought with roughness; take the
largest λ that reaches `SHARE` of the gain, among those whose warp folds in at most `FOLDS_PERCENT`
of the voxels of the fixed brain. No label enters.
"""

from collections.abc import Sequence

from jaxreg.registration.deformable.deformation import Deformation

LAMS = tuple(i / 10 for i in range(11))
SHARE = 0.95
"""Share of the attainable gain in similarity that λ has to reach."""
FOLDS_PERCENT = 0.1
"""A warp that folds more is not taken while one folds less."""

RULE = (
    f"the largest λ whose similarity gain is at least {SHARE:.0%} of the best one's, among those "
    f"with at most {FOLDS_PERCENT} % of folds"
)


def choose(before: float, curve: Sequence[Deformation], *, share: float = SHARE) -> Deformation:
    """The deformation that the rule picks; `before` is the similarity without any.

    Where every warp folds too much, the least folded is taken; where nothing is gained, the largest
    λ.
    """
    calm = [d for d in curve if d.folds_percent <= FOLDS_PERCENT]
    if not calm:
        return min(curve, key=lambda d: (d.folds_percent, -d.lam))
    gain = max(d.similarity for d in calm) - before
    enough = [d for d in calm if gain <= 0 or d.similarity - before >= share * gain]
    return max(enough, key=lambda d: d.lam)
