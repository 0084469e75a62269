"""The numbers of a registration as lines for the user, each with its verdict and its meaning."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from jaxreg.registration.deformable.lambda_selection import RULE
from jaxreg.registration.register import POOR_SIMILARITY, Registration

Status = Literal["pass", "warn", "fail", "info"]
State = Literal["green", "amber", "red"]

FOLDS_WARN_PERCENT = 0.1
SCALES_WARN = (0.6, 1.6)
"""Determinants of an affine between two adults' brains lie well inside."""
SCALES_FAIL = (0.4, 2.5)
INVERSE_WARN_MM = 0.8
"""Mean error after going there and back: validation pairs have 0.41 to 0.63 mm."""
OVERLAP_WARN, OVERLAP_FAIL = 0.90, 0.75
"""Dice of both brain masks after the linear part: validation pairs have 0.946 to 0.965, and 0.88
where one of the two lacks the cerebellum; good test pairs 0.908 and more (docs/trust.md)."""
SIMILARITY_WARN, SIMILARITY_FAIL = 0.30, 0.20
"""Mean squared local correlation after the deformable part: validation pairs have 0.38 to 0.57, and
smoothed noise in the mask of a brain 0.16."""
ESTIMATE_WARN, ESTIMATE_FAIL = 0.58, 0.45
"""Estimated Dice: validation pairs have 0.67 to 0.75, and from starts that are 12 mm off 0.35 to
0.52."""
LINEAR_ESTIMATE_WARN, LINEAR_ESTIMATE_FAIL = 0.45, 0.30
"""The same of a linear map: validation pairs of two subjects have 0.49 to 0.70."""
SUBJECT_ESTIMATE_WARN, SUBJECT_ESTIMATE_FAIL = 0.66, 0.50
"""The same of the map between two images of one subject: validation pairs have 0.74 to 0.80, 0.60
to 0.70 where they are moved by 2 mm and 2°, and 0.40 to 0.56 by 4 mm and 4° (docs/trust.md)."""
JACOBIAN_WARN = (0.0, 10.0)
JACOBIAN_LEAST, JACOBIAN_MOST = (-0.09, 0.05), (4.5, 9.5)
"""Least and largest det J of the validation pairs: small minima are usual in single voxels, so that
only a fold is a reason to look."""


@dataclass(frozen=True)
class Number:
    """A line of the table: what was measured, its value as it is to be read, and what it means."""

    name: str
    value: str
    status: Status
    note: str


class Verdict(NamedTuple):
    """What the checks say of a registration as a whole, with the reasons.

    `green` says that nothing stands out, which is no proof that the result is right; `amber` that
    a person should look; `red` that the result is most likely wrong.
    """

    state: State
    reasons: tuple[str, ...]

    def __str__(self) -> str:
        """A line for the user."""
        if self.state == "green":
            return "checked: nothing stands out; the report shows the result"
        advice = "look at the report" if self.state == "amber" else "most likely wrong"
        return f"checked: {advice}: {'; '.join(self.reasons)}"


def verdict_of(numbers: Sequence[Number], warnings: Sequence[str]) -> Verdict:
    """The worst of the numbers' states; a warning makes it amber at least."""
    failed = tuple(n.name for n in numbers if n.status == "fail")
    doubtful = tuple(n.name for n in numbers if n.status == "warn")
    count = (f"{len(warnings)} warning{'s' if len(warnings) > 1 else ''}",) if warnings else ()
    state: State = "red" if failed else "amber" if doubtful or warnings else "green"
    return Verdict(state, (*failed, *doubtful, *count))


def numbers_of(result: Registration, values: dict[str, float]) -> tuple[Number, ...]:
    """The numbers as lines for readers, each with pass, warn or info."""
    deformable = result.config.transform == "deformable"
    low, high = SCALES_WARN
    determinant = values["affine_determinant"]
    note = (
        "volume of the moving brain by that of the fixed one, as the linear part has it; "
        f"{low} to {high} is usual between two heads"
    )
    least, most = SCALES_FAIL
    overlap = values["mask_overlap"]
    rows = [
        _number(
            "determinant of the affine",
            f"{determinant:.3f}",
            note,
            low <= determinant <= high,
            wrong=not least <= determinant <= most,
        ),
        _number(
            "overlap of the brains",
            f"{overlap:.3f}",
            "Dice of both masks after the linear part",
            overlap >= OVERLAP_WARN,
            wrong=overlap < OVERLAP_FAIL,
        ),
    ]
    if "estimated_dice" in values:
        rows.append(_estimate_number(values, result))
    if deformable:
        rows += _deformable_numbers(values, RULE if result.curve else "as given, or the default")
    else:
        similarity = f"{values['similarity']:.3f}"
        note = f"after the {result.config.transform} part; 1 is perfect"
        least_alike = values["similarity"] < POOR_SIMILARITY
        rows.append(
            _number("similarity (local cc²)", similarity, note, not least_alike, wrong=least_alike)
        )
    if "dice" in values:
        before, after = values["dice_affine"], values["dice"]
        text = f"{before:.3f} → {after:.3f}" if deformable else f"{after:.3f}"
        note = f"mean over the {values['dice_labels']:.0f} labels common to both images"
        rows.append(_number("Dice", text, note, after >= before))
    return tuple(rows)


def _estimate_number(values: dict[str, float], result: Registration) -> Number:
    """The Dice that labels of the structures most likely have, were they right in both images."""
    after = values["estimated_dice"]
    low, high = values["estimated_dice_low"], values["estimated_dice_high"]
    if result.config.same_subject:
        return _number(
            "estimated Dice",
            f"{after:.2f} ({low:.2f} to {high:.2f})",
            "how well the structures overlap that segmentation finds in the two images; 0.74 to "
            "0.80 is usual for a right map between two images of one subject, because "
            "segmentation finds them a little differently in each contrast",
            after >= SUBJECT_ESTIMATE_WARN,
            wrong=after < SUBJECT_ESTIMATE_FAIL,
        )
    warn, fail = ESTIMATE_WARN, ESTIMATE_FAIL
    if result.config.transform != "deformable":
        warn, fail = LINEAR_ESTIMATE_WARN, LINEAR_ESTIMATE_FAIL
    return _number(
        "estimated Dice",
        f"{after:.2f} ({low:.2f} to {high:.2f})",
        "how well the structures of both brains most likely overlap after the registration, had "
        "they been outlined correctly in both images; 1 is perfect, and in parentheses is the "
        "range of 95 % of the test registrations",
        after >= warn,
        wrong=after < fail,
    )


def _deformable_numbers(values: dict[str, float], lam_note: str) -> list[Number]:
    """λ, similarity, folds, det J, lengths and inverse consistency."""
    before, after = values["similarity_affine"], values["similarity"]
    folds, error = values["folds_percent"], values["inverse_consistency_mm"]
    mean_mm, most_mm = values["displacement_mean_mm"], values["displacement_max_mm"]
    return [
        _number("λ", f"{values['lam']:g}", lam_note),
        _number(
            "similarity (local cc²)",
            f"{before:.3f} → {after:.3f}",
            "after the affine → after registration; 1 is perfect, "
            f"at least {SIMILARITY_WARN} is usual",
            after >= max(before, SIMILARITY_WARN),
            wrong=after < SIMILARITY_FAIL,
        ),
        _number(
            "folds",
            f"{folds:.4f} %",
            "voxels of the fixed brain with det J ≤ 0, on the grid of the deformation",
            folds <= FOLDS_WARN_PERCENT,
        ),
        _determinant_number(values["jacobian_min"], values["jacobian_max"]),
        _number(
            "displacement",
            f"{mean_mm:.1f} mm, at most {most_mm:.1f}",
            "of the deformable part, in the fixed mask",
        ),
        _number(
            "inverse consistency",
            f"{error:.3f} mm",
            "mean distance after going there and back",
            error <= INVERSE_WARN_MM,
        ),
    ]


def _determinant_number(lowest: float, highest: float) -> Number:
    """The two extremes of det J, beside those of the validation pairs."""
    low, high = JACOBIAN_WARN
    least, most = (f"{a:g} to {b:g}" for a, b in (JACOBIAN_LEAST, JACOBIAN_MOST))
    return _number(
        "det J in the mask",
        f"{lowest:.2f} … {highest:.2f}",
        "volume of the moving anatomy by that of the fixed one after the linear part, in the two "
        "most extreme voxels. Single voxels are extreme in good results too: validation pairs "
        f"have {least} as their least and {most} as their largest value. At most {low:g} is a "
        f"fold, above {high:g} is unusual",
        low < lowest and highest <= high,
    )


def _number(
    name: str, value: str, note: str, good: bool | None = None, *, wrong: bool = False
) -> Number:
    """A line of the table; without a verdict it only informs."""
    status: Status = "info" if good is None else "fail" if wrong else "pass" if good else "warn"
    return Number(name, value, status, note)
