"""The network grid where a network expects the brain: its training grid, laid onto that."""

import numpy as np
import pytest
from registration_data import motion, person, write_person

from jaxreg.configuration.registration import RegisterConfig
from jaxreg.configuration.training import RegistrationConfig
from jaxreg.geometry.grid import Volume
from jaxreg.geometry.transforms import affine_points
from jaxreg.models.model import Model
from jaxreg.registration.deformable.grid import one_side
from jaxreg.registration.deformable.method import load_method
from jaxreg.registration.deformable.placing import place
from jaxreg.registration.inputs import read_subject


def bytes_of(index, domain="T1w"):
    """A phantom as training writes a template: bytes, 0 outside the brain."""
    subject, affine = person(index)
    stored = np.clip(np.rint(200 * subject.images[domain]), 1, 255)
    return Volume(np.where(subject.labels > 0, stored, 0).astype(np.uint8), affine)


@pytest.fixture(scope="module")
def method():
    """A method whose network was trained around the phantom 1."""
    method = load_method(RegisterConfig(optimize_only=True, spacing=8.0))
    spacing_mm = (8.0, 8.0, 8.0)
    model = Model(RegistrationConfig(), {}, {}, 1, spacing_mm, template=bytes_of(1))
    return method._replace(model=model)


def subject_of(paths, *, mask=True):
    return read_subject("fixed", paths["image"], mask=paths["mask"] if mask else None)


def test_an_image_on_the_training_grid_keeps_it(tmp_path, method):
    subject = subject_of(write_person(tmp_path, 2, "T1w"))
    template = method.model.template
    on_it = subject._replace(image=template, mask=template.array > 0)
    grid, how = place(method, on_it)
    assert grid.shape == template.array.shape
    np.testing.assert_array_equal(grid.affine, template.affine)
    assert how == "the fixed image's, which is that of the network's training"


@pytest.mark.parametrize("domain", ["T1w", "T2w"])
def test_the_training_grid_is_laid_onto_a_brain_wherever_it_lies(tmp_path, method, domain):
    """Turned by 20° and 400 mm away: the fields of view of template and image do not meet."""
    moved = motion(20, (400, -30, 25))
    paths = write_person(tmp_path, 1, domain, axes="psl", spacing_mm=(6.0, 5.0, 7.0), motion=moved)
    subject = subject_of(paths)
    template = method.model.template
    grid, how = place(method, subject)
    assert how.startswith("that of the network's training, laid onto the fixed brain")
    assert grid.shape == template.array.shape
    brain = np.argwhere(template.array > 0).astype(float)
    wanted = affine_points(moved @ template.affine, brain)
    apart = np.linalg.norm(affine_points(grid.affine, brain) - wanted, axis=1)
    assert apart.mean() < 4  # half a voxel
    image, mask = one_side(subject, np.eye(4), grid)
    own = person(1)[0].images[domain]
    both = (template.array > 0) & np.asarray(mask)
    assert np.corrcoef(np.asarray(image)[..., 0][both], own[both])[0, 1] > 0.8


def test_without_template_or_brain_the_grid_surrounds_what_is_fixed(tmp_path, method):
    paths = write_person(tmp_path, 1, "T1w", motion=motion(20, (0, 0, 0)))
    subject = subject_of(paths)
    untold = method._replace(model=method.model._replace(template=None))
    grid, how = place(untold, subject)
    assert how == "around the fixed brain"
    head = subject._replace(brain_known=False)
    other, how = place(method, head)
    assert how == "around the head"
    np.testing.assert_array_equal(grid.affine, other.affine)


def test_a_brain_that_the_template_does_not_fit_is_surrounded(tmp_path, method):
    """Three times its size: no head differs so much, and the training grid does not hold it."""
    subject = subject_of(write_person(tmp_path, 1, "T1w"))
    large = Volume(subject.image.array, np.diag([3.0, 3.0, 3.0, 1.0]) @ subject.image.affine)
    grid, how = place(method, subject._replace(image=large))
    assert how == "around the fixed brain, which fits the network's template nowhere"
    assert np.prod(grid.shape) > 8 * method.model.template.array.size


def test_of_two_maps_the_one_of_higher_correlation_counts(tmp_path, method, monkeypatch):
    subject = subject_of(write_person(tmp_path, 1, "T1w", motion=motion(15, (5, 0, 0))))
    calls = []

    def found(fixed, moving, *, mode, **others):
        calls.append(mode)
        return motion(15, (5, 0, 0)) if mode == good else motion(15, (45, 0, 0))

    monkeypatch.setattr("jaxreg.registration.deformable.placing.register_affine", found)
    monkeypatch.setattr(
        "jaxreg.registration.deformable.placing._centre", lambda affine, mask: np.zeros(3)
    )
    for good in ("affine", "rigid"):
        grid, how = place(method, subject)
        assert how.endswith(f"({good})")
        wanted = motion(15, (5, 0, 0)) @ method.model.template.affine
        np.testing.assert_allclose(grid.affine, wanted)
    assert calls == ["rigid", "affine"] * 2
