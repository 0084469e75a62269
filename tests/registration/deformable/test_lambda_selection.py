"""The rule of `--lam auto` on curves made by hand, and the sweep's files."""

import numpy as np
import pytest
from registration_data import write_subject

from jaxreg.cli import main
from jaxreg.io.images import read_image
from jaxreg.registration.deformable.deformation import Deformation
from jaxreg.registration.deformable.lambda_selection import LAMS, choose

NOTHING = np.zeros((1, 1, 1, 3), np.float32)


def curve(similarities, folds):
    return [
        Deformation(lam, NOTHING, NOTHING, NOTHING[..., 0], s, f, 0.0)
        for lam, s, f in zip((0.0, 0.3, 0.6, 0.9), similarities, folds, strict=True)
    ]


@pytest.mark.parametrize(
    ("similarities", "folds", "lam"),
    [
        ((0.50, 0.497, 0.492, 0.30), (0, 0, 0, 0), 0.6),  # 0.492 is 96 % from 0.30 to 0.50
        ((0.50, 0.497, 0.488, 0.30), (0, 0, 0, 0), 0.3),  # 0.488 is 94 %
        ((0.80, 0.50, 0.495, 0.30), (2, 0, 0, 0), 0.6),  # the best folds: it sets no standard
        ((0.80, 0.70, 0.60, 0.50), (3, 2, 1, 0.5), 0.9),  # all fold: the least folded
        ((0.29, 0.29, 0.29, 0.29), (0, 0, 0, 0), 0.9),  # nothing gained: the smoothest
    ],
)
def test_the_rule_takes_the_largest_lam_with_most_of_the_gain(similarities, folds, lam):
    assert choose(0.30, curve(similarities, folds)).lam == lam


def test_a_sweep_writes_its_curve_and_every_moved_image(tmp_path):
    fixed, moving = (write_subject(tmp_path, i, d)["image"] for i, d in ((1, "T1w"), (2, "T2w")))
    out = tmp_path / "out"
    direct = ["--optimize-only", "--init=none", "--spacing=8", "--steps=3"]
    assert main(["sweep", str(fixed), str(moving), f"--out={out}", *direct]) == 0
    head, *rows = (line.split("\t") for line in (out / "curve.tsv").read_text().splitlines())
    assert head == ["lam", "similarity", "folds_percent", "sdlogj", "chosen"]
    assert [float(r[0]) for r in rows] == list(LAMS)
    (chosen,) = [float(r[0]) for r in rows if r[-1] == "yes"]
    moved = {lam: read_image(out / f"moved_lam-{lam:.1f}.nii.gz").array for lam in LAMS}
    np.testing.assert_array_equal(moved[chosen], read_image(out / "moved.nii.gz").array)
    similarity = [float(r[1]) for r in rows]
    assert similarity[0] > similarity[-1]
    assert np.abs(moved[0.0] - moved[1.0]).max() > 1
