"""FreeSurfer's label numbers: the structures that are scored, parcels as one cortex."""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from jaxtyping import Int

STRUCTURES: Mapping[int, str] = MappingProxyType(
    {
        2: "Left-Cerebral-White-Matter",
        3: "Left-Cerebral-Cortex",
        4: "Left-Lateral-Ventricle",
        5: "Left-Inf-Lat-Vent",
        7: "Left-Cerebellum-White-Matter",
        8: "Left-Cerebellum-Cortex",
        10: "Left-Thalamus",
        11: "Left-Caudate",
        12: "Left-Putamen",
        13: "Left-Pallidum",
        14: "3rd-Ventricle",
        15: "4th-Ventricle",
        16: "Brain-Stem",
        17: "Left-Hippocampus",
        18: "Left-Amygdala",
        26: "Left-Accumbens-area",
        28: "Left-VentralDC",
        41: "Right-Cerebral-White-Matter",
        42: "Right-Cerebral-Cortex",
        43: "Right-Lateral-Ventricle",
        44: "Right-Inf-Lat-Vent",
        46: "Right-Cerebellum-White-Matter",
        47: "Right-Cerebellum-Cortex",
        49: "Right-Thalamus",
        50: "Right-Caudate",
        51: "Right-Putamen",
        52: "Right-Pallidum",
        53: "Right-Hippocampus",
        54: "Right-Amygdala",
        58: "Right-Accumbens-area",
        60: "Right-VentralDC",
    }
)
"""The standard structures of `aseg`; fluid, vessels, plexus and lesions are not scored."""
HINDBRAIN = (7, 8, 15, 16, 46, 47)
"""FreeSurfer's numbers of cerebellum, fourth ventricle and brain stem."""

_PARCELS = {3: (1000, 1035), 42: (2000, 2035)}
"""Cortex of a side → first and last number of its Desikan–Killiany parcels in `aparc+aseg`."""


def merge_parcels(labels: Int[np.ndarray, "x y z"]) -> Int[np.ndarray, "x y z"]:
    """Labels with the parcels 1000–1035 as 3 (left cortex) and 2000–2035 as 42 (right cortex)."""
    merged = labels.copy()
    for cortex, (first, last) in _PARCELS.items():
        merged[(labels >= first) & (labels <= last)] = cortex
    return merged


def structure_name(number: int) -> str:
    """FreeSurfer's name of a structure; 24 is here all of the brain that is no structure."""
    return STRUCTURES.get(number, "Rest-Of-Brain")
