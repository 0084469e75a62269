"""Contrasts by flag, name and look, and what happens to those that the network does not know."""

from pathlib import Path

import numpy as np
import pytest
from registration_data import motion

from jaxreg.configuration.registration import RegisterConfig
from jaxreg.data.synthetic.phantom import phantom_subject
from jaxreg.errors import InputError
from jaxreg.geometry.grid import Volume
from jaxreg.io.images import write
from jaxreg.registration.contrasts import contrast_in_name, contrasts_of, look_of
from jaxreg.registration.deformable.method import load_method, routed
from jaxreg.registration.inputs import read_subject

OWN = ("T1w", "T2w")


@pytest.mark.parametrize(
    ("name", "contrast"),
    [
        ("sub-1_T2w.nii.gz", "T2w"),
        ("sub-2_T1w_brain.nii.gz", "T1w"),
        ("sub-3_ses-1_acq-tse_FLAIR.nii.gz", "FLAIR"),
        ("anna-MPRAGE.mgz", "T1w"),
        ("t1.nii", "T1w"),
        ("sub-4_PDw.nii.gz", "PDw"),
        ("a.nii", None),
        ("part1.nii", None),
    ],
)
def test_a_name_says_its_contrast_as_bids_does(name, contrast):
    assert contrast_in_name(Path(name), OWN) == contrast


def test_a_domain_of_the_models_own_is_read_too():
    assert contrast_in_name(Path("x_ct1.nii"), ("ct1", "us")) == "ct1"


@pytest.fixture(scope="module")
def sides(tmp_path_factory):
    """A T1w and a T2w brain in files whose names say nothing."""
    subject = phantom_subject(1, shape=(72, 88, 76), spacing_mm=2.0)
    affine = motion(10, (4, 0, -3)) @ np.diag([2.0, 2.0, 2.0, 1.0])
    brain, found = subject.labels > 0, {}
    for domain in OWN:
        path = tmp_path_factory.mktemp(domain) / "scan.nii.gz"
        image = np.where(brain, 1000 * subject.images[domain], 0).astype(np.float32)
        write(path, Volume(image, affine))
        mask = path.with_name("mask.nii.gz")
        write(mask, Volume(brain.astype(np.uint8), affine))
        found[domain] = read_subject("fixed", path, mask=mask)
    return found


@pytest.mark.parametrize("domain", OWN)
def test_a_brain_looks_like_what_it_is(sides, domain):
    assert look_of(sides[domain]) == domain
    assert look_of(sides[domain]._replace(brain_known=False)) is None


@pytest.mark.parametrize(
    ("given", "names", "looks", "wanted"),
    [
        (None, ("a", "b"), ("T1w", "T2w"), ("T1w", "T2w")),
        (None, ("a", "b"), ("T2w", "T1w"), ("T2w", "T1w")),
        (None, ("a", "b"), ("T1w", "T1w"), ("T1w", "T1w")),
        (None, ("x_T2w", "y_T1w_brain"), ("T1w", "T1w"), ("T2w", "T1w")),
        (None, ("x_T1w", "y_FLAIR"), ("T1w", "T2w"), ("T1w", "FLAIR")),
        ("T2w,T1w", ("x_T1w", "y_T2w"), ("T1w", "T2w"), ("T2w", "T1w")),
    ],
)
def test_the_flag_decides_then_the_name_then_the_look(sides, given, names, looks, wanted):
    fixed, moving = (
        sides[look]._replace(path=Path(f"{name}.nii"))
        for name, look in zip(names, looks, strict=True)
    )
    assert contrasts_of(given, fixed, moving, OWN) == wanted


def test_where_only_one_side_is_known_the_other_is_its_partner(sides):
    unknown = sides["T1w"]._replace(path=Path("a.nii"), brain_known=False)
    known = sides["T1w"]._replace(path=Path("b_T1w.nii"))
    assert contrasts_of(None, unknown, known, OWN) == ("T2w", "T1w")
    assert contrasts_of(None, unknown, unknown, OWN) == OWN
    with pytest.raises(InputError, match="--domains"):
        contrasts_of("T1w,FLAIR", known, known, OWN)


def test_what_the_network_does_not_know_is_optimised_or_refused_with_the_way_out():
    config = RegisterConfig()
    network = load_method(config)
    same, remark = routed(network, config, ("T2w", "T1w"))
    assert same.model is network.model and same.exchanged and remark is None
    direct, remark = routed(network, config, ("T1w", "FLAIR"))
    assert direct.model is None and direct.steps > 0
    assert remark is not None and "T1w and FLAIR" in remark and "--optimize-only" in remark
    with pytest.raises(InputError, match="--refine.*--optimize-only"):
        routed(network, RegisterConfig(refine=3), ("T1w", "T1w"))
