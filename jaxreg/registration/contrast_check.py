"""Which of T1w and T2w a brain looks like: white matter against the rim, rich in fluid and grey."""

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

T1W_FROM = 0.065
"""`depth_contrast` above it is T1w. Of 131 T1w brains (simulated T2w, rendered, and real scans) the
lowest had 0.095, of 104 T2w brains the highest 0.035: a margin of 0.03 to either side."""
_RIM_MM, _DEEP_MM = (0.0, 8.0), (12.0, 25.0)


def depth_contrast(
    image: Float[np.ndarray, "x y z"],
    mask: Bool[np.ndarray, "x y z"],
    spacing_mm: tuple[float, float, float],
) -> float:
    """Median intensity 12–25 mm below the brain's surface minus that in the outer 8 mm.

    Deep there is white matter above all, at the rim cortex and fluid: in T1w white matter is the
    brightest tissue and fluid the darkest, in T2w the other way round. NaN without such depths.
    """
    padded = np.pad(mask, 1)
    depth_mm = np.asarray(ndimage.distance_transform_edt(padded, spacing_mm))[1:-1, 1:-1, 1:-1]
    low, high = _DEEP_MM
    deep = (depth_mm >= low) & (depth_mm <= high)
    rim = (depth_mm > _RIM_MM[0]) & (depth_mm <= _RIM_MM[1])
    if not deep.any() or not rim.any():
        return float("nan")
    return float(np.median(image[deep]) - np.median(image[rim]))


def domain_warnings(contrasts: tuple[float, float], domains: tuple[str, str]) -> tuple[str, ...]:
    """What to say where fixed and moving do not look like the domains they are taken for.

    `contrasts` are the `depth_contrast` of fixed and moving; only T1w and T2w are known.
    """
    doubtful = []
    for role, contrast, domain in zip(("fixed", "moving"), contrasts, domains, strict=True):
        seems = "T1w" if contrast > T1W_FROM else "T2w"
        if domain in ("T1w", "T2w") and np.isfinite(contrast) and seems != domain:
            doubtful.append((role, contrast, domain, seems))
    if len(doubtful) == 2 and doubtful[0][2] != doubtful[1][2]:
        return (
            f"fixed and moving seem to be swapped: taken for {domains[0]} and {domains[1]}, but "
            f"white matter minus rim is {contrasts[0]:+.2f} in fixed and {contrasts[1]:+.2f} in "
            f"moving (T1w above {T1W_FROM}, T2w below). Is --domains {domains[1]},{domains[0]} "
            "right?",
        )
    return tuple(
        f"{role} is taken for {domain} but looks like {seems}: white matter minus rim is "
        f"{contrast:+.2f} (T1w above {T1W_FROM}, T2w below)."
        for role, contrast, domain, seems in doubtful
    )
