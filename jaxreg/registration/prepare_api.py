"""`jaxreg.prepare`: a cohort made of scans, from Python.

It lies here and not in `jaxreg.data`, because the scans are aligned by the linear registration.
"""

from pathlib import Path

from jaxreg.configuration.preparation import Layout, PrepareConfig
from jaxreg.configuration.registration import Extraction
from jaxreg.data.prepare.brains import no_finder
from jaxreg.data.prepare.prepare import Summary
from jaxreg.data.prepare.prepare import prepare as prepare_cohort
from jaxreg.errors import speaks_of_arguments
from jaxreg.registration.linear.affine import register_affine
from jaxreg.segmentation.networks import brain_finder


@speaks_of_arguments
def prepare(
    scans: Path | str,
    out: Path | str,
    *,
    layout: Layout,
    labels: Path | str | None = None,
    spacing: float = 2.0,
    split: str | None = None,
    seed: int = 0,
    template: Path | str | None = None,
    jobs: int | None = None,
    entities: str | None = None,
    extract: Extraction = "auto",
    segmentation: Path | str | None = None,
) -> Summary:
    """Make a cohort for training from scans, or continue one.

    The scans are reoriented, masked, aligned to a common space, resampled, normalised and labelled.

    Args:
        scans: the folder of the data set, or the table of a "table".
        out: the folder of the cohort: a new one, or one to be continued with the same settings.
        layout: how the scans are stored: "bids", "hcp", "ixi" or "table"; docs/prepare.md describes
            each.
        labels: what the numbers of label maps mean: "freesurfer", "own", or a TSV (index, name); by
            default as the layout says. With "auto" they are FreeSurfer's, and subjects without a
            label map get one from jaxreg's segmentation.
        spacing: the isotropic voxel size of the cohort, in mm.
        split: "TRAIN/VAL/TEST" in per cent, shares or subjects; by default "80/10/10".
        seed: the seed of the random split.
        template: the image of the common space; by default the mean of up to 20 subjects.
        jobs: subjects worked on at a time; by default the number of cores.
        entities: which of several BIDS images of one subject are taken, such as
            "acq=highres,run=1"; by default the rules of docs/prepare.md decide.
        extract: brains that jaxreg finds by segmentation: "auto" (of whole heads without a mask),
            "never" or "always" (of all without a mask).
        segmentation: folder of segmentation networks of one's own; by default the bundled ones.

    Returns:
        Who is in which split, who failed or was left out and why; as text, what the command prints.

    Raises:
        jaxreg.errors.InputError: scans or settings that cannot be used, or too many failures.

    Examples:
        >>> import jaxreg
        >>> summary = jaxreg.prepare("scans.tsv", "cohort", layout="table", spacing=8.0)
        >>> summary.subjects["train"], summary.failed
        (1, {})
    """
    config = PrepareConfig(
        layout=layout,
        source=Path(scans),
        out=Path(out),
        labels=None if labels is None else str(labels),
        spacing=spacing,
        split=split,
        seed=seed,
        template=None if template is None else Path(template),
        jobs=jobs,
        entities=entities,
        extract=extract,
        segmentation=None if segmentation is None else Path(segmentation),
    )
    find = brain_finder(config.segmentation) if config.segments else no_finder
    return prepare_cohort(config, register_affine, find=find)
