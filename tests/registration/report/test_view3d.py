"""`view3d.html`: what a registration puts into it, and the page in a headless Chromium."""

import base64
import gzip
import io
import json
import re
import time
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from chromium import chromium
from nibabel.affines import apply_affine
from PIL import Image
from registration_data import write_subject
from scipy import ndimage
from selenium.webdriver.common.by import By
from selenium.webdriver.support.select import Select

from jaxreg.cli import main
from jaxreg.geometry.grid import Volume
from jaxreg.registration.inputs import read_subject
from jaxreg.registration.output.folder import check_folder
from jaxreg.registration.report import view3d
from jaxreg.registration.report.view3d import View, view_of, write_view

FLAGS = (
    "--headless=new --no-sandbox --use-gl=angle --use-angle=swiftshader "
    "--enable-unsafe-swiftshader --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --window-size=1000,800"
).split()
SHAPE = (40, 48, 36)
AFFINE = np.array([[2.0, 0, 0, -41], [0, 2, 0, -50], [0, 0, 2, -30], [0, 0, 0, 1]])


def load(path) -> Any:
    return nib.load(path)  # pyright: ignore[reportPrivateImportUsage]


def volumes(page):
    """The volumes of a page by name, as nibabel images."""
    text = re.search(r'id="data">(.*?)</script>', page.read_text(encoding="utf-8"), re.S)
    assert text is not None
    stored = json.loads(text[1])["volumes"]
    return {
        name: nib.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(value)))
        for name, value in stored.items()
    }


@pytest.fixture(scope="module")
def view():
    """An egg whose left half is dark, with a thalamus, a shrunken front and one folded voxel."""
    points = np.moveaxis(np.indices(SHAPE), 0, -1) @ AFFINE[:3, :3] + AFFINE[:3, 3]
    inside = np.linalg.norm(points / (32.0, 40.0, 28.0), axis=-1) < 1
    left, front = points[..., 0] < 0, points[..., 1] > 0
    fixed = np.where(inside, np.where(left, 90, 200), 0).astype(np.uint8)
    moved = np.where(inside, np.where(left, 200, 90), 0).astype(np.uint8)
    change = np.where(inside & front, -1.0, 0).astype(np.float32)
    folds = np.zeros(SHAPE, np.uint8)
    folds[10, 20, 15] = 1
    near = np.linalg.norm(points - (-15, 10, 0), axis=-1) < 8
    thalamus = np.where(near, 10, 0).astype(np.uint8)
    arrays = fixed, moved, change, folds, thalamus
    return View("one ← <two>", *(Volume(array, AFFINE) for array in arrays))


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    yield from chromium(tmp_path_factory.mktemp("chromium"), FLAGS)


@pytest.fixture
def page(browser, view, tmp_path):
    """The page, opened from the file system; it may ask for nothing and report no error."""
    write_view(tmp_path / "view3d.html", view)
    browser.get((tmp_path / "view3d.html").as_uri())
    deadline = time.monotonic() + 300
    while browser.execute_script("return document.documentElement.dataset.state") != "ready":
        assert time.monotonic() < deadline, browser.find_element(By.ID, "trouble").text
        time.sleep(0.1)
    browser.execute_script(
        "view3d.opts.crosshairWidth = 0; view3d.opts.show3Dcrosshair = false;"
        "view3d.opts.isOrientCube = false; view3d.opts.isOrientationTextVisible = false"
    )
    yield browser
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0
    assert [line for line in browser.get_log("browser") if line["level"] == "SEVERE"] == []


def choose(page, element, value):
    Select(page.find_element(By.ID, element)).select_by_value(value)


def picture(page):
    """The canvas as it is drawn, RGB."""
    script = "view3d.drawScene(); return document.getElementById('space').toDataURL()"
    png = base64.b64decode(page.execute_script(script).partition(",")[2])
    shown = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), int)
    assert np.ptp(shown) > 100, "an empty canvas"
    return shown


def grey_levels(shown):
    """The grey pixels of a picture, neither black nor coloured: where they are, how bright."""
    grey = (np.ptp(shown, axis=-1) < 12) & (shown[..., 0] > 40)
    return grey, shown[..., 0]


def test_the_rendering_shows_the_image_and_where_its_left_is(page):
    choose(page, "show", "render")
    shown = picture(page)
    grey, levels = grey_levels(shown)
    labelled, count = ndimage.label(ndimage.binary_opening(grey, iterations=3))  # pyright: ignore
    largest = labelled == 1 + np.argmax(np.bincount(labelled.ravel())[1:])
    assert count and 0.05 < largest.mean() < 0.6, "one body with black around it"
    rows, columns = np.flatnonzero(largest.any(axis=1)), np.flatnonzero(largest.any(axis=0))
    assert 1.1 < np.ptp(columns) / np.ptp(rows) < 1.7, "80 mm long and 56 mm high, from the side"
    page.execute_script("view3d.setRenderAzimuthElevation(0, 0)")  # from behind: left is left
    grey, levels = grey_levels(picture(page))
    columns = np.flatnonzero(grey.any(axis=0))
    middle = columns.mean()
    left = levels[:, : int(middle) - 10][grey[:, : int(middle) - 10]]
    right = levels[:, int(middle) + 10 :][grey[:, int(middle) + 10 :]]
    assert np.median(right) > 1.5 * np.median(left)


def test_structures_volume_change_and_the_other_image_lie_over_it(page):
    colours = {
        "none": lambda s: np.ptp(s, axis=-1) > 30,
        "structures": lambda s: np.ptp(s, axis=-1) > 40,
        "jacobian": lambda s: s[..., 2] > s[..., 0] + 40,
        "other": lambda s: s[..., 0] > s[..., 2] + 40,
    }
    plain = picture(page)
    for overlay, coloured in colours.items():
        choose(page, "overlay", overlay)
        seen = coloured(picture(page)).mean()
        assert (seen > 0.002) == (overlay != "none"), (overlay, seen)
    choose(page, "overlay", "none")
    np.testing.assert_allclose(picture(page), plain, atol=3)
    choose(page, "image", "moved")
    assert np.abs(picture(page) - plain).mean() > 3


def test_the_radiological_view_shows_the_left_at_the_right(page):
    def dark_side():
        """Whether the dark half of the axial slice, at the lower left of the grid, is left."""
        grey, levels = grey_levels(picture(page))
        half = grey.shape[0] // 2
        grey, levels = grey[half:, : grey.shape[1] // 2], levels[half:, : grey.shape[1] // 2]
        dark = np.argwhere(grey & (levels < 150))[:, 1].mean()
        bright = np.argwhere(grey & (levels > 180))[:, 1].mean()
        return "left" if dark < bright else "right"

    assert dark_side() == "left"
    page.find_element(By.ID, "radiological").click()
    assert dark_side() == "right"


def test_words_name_the_place_the_structure_and_the_change(page):
    def at(mm):
        script = "const f = view3d.mm2frac(arguments[0]); view3d.scene.crosshairPos = f; "
        page.execute_script(script + "view3d.createOnLocationChange()", list(mm))
        return page.find_element(By.ID, "readout").text

    assert at((-15, 10, 0)) == "-15, 10, 0 mm · Left-Thalamus · det J 0.50"
    assert at((15, -10, 0)) == "15, -10, 0 mm · no structure · det J 1.00"
    assert at(AFFINE[:3, :3] @ (10, 20, 15) + AFFINE[:3, 3]).endswith("folds")


def test_the_cut_goes_through_what_lies_over_the_image(page):
    """The plane lies between the thalamus and the middle, so most of the thalamus goes."""
    choose(page, "show", "render")
    choose(page, "overlay", "structures")

    def coloured():
        return (np.ptp(picture(page), axis=-1) > 40).mean()

    whole = coloured()
    page.find_element(By.ID, "cut").click()
    assert whole > 0.002 and coloured() < 0.5 * whole


def test_a_view_without_structures_offers_none(view, tmp_path):
    write_view(tmp_path / "view3d.html", view._replace(structures=None))
    page = (tmp_path / "view3d.html").read_text(encoding="utf-8")
    assert 'value="structures"' not in page and 'value="jacobian"' in page
    assert "one ← &lt;two&gt;" in page and "<two>" not in page
    assert set(volumes(tmp_path / "view3d.html")) == {"fixed", "moved", "jacobian", "folds"}


def test_the_library_can_stand_in_a_script_and_is_the_one_that_was_published():
    script = gzip.decompress(view3d.NIIVUE.read_bytes()).decode("utf-8")
    assert "</script" not in script.lower() and "<!--" not in script
    assert "0.69.0" in script and (view3d.NIIVUE.parent / "LICENSE").is_file()


@pytest.fixture
def registered(tmp_path):
    """A fixed image of 4 × 5 × 6 mm whose file has LAS axes, as registered with itself."""
    paths = write_subject(tmp_path, 1, "T1w", axes="las", spacing_mm=(4.0, 5.0, 6.0))
    fixed = read_subject("fixed", paths["image"], mask=paths["mask"])
    stored = load(paths["image"])
    jacobian = np.full(stored.shape, 0.5, np.float32)
    jacobian[:, :, : stored.shape[2] // 2] = 16.0  # inferior: more than the view tells apart
    return fixed, stored, jacobian, load(paths["mask"])


def test_the_view_lies_where_the_image_does(registered):
    """Oracle: SciPy reads the file at the view's voxels; a mean over a voxel differs little."""
    fixed, stored, jacobian, mask = registered
    view = view_of(fixed, stored.get_fdata() / 2, jacobian, title="one")
    assert view.fixed.spacing_mm == pytest.approx((4, 4, 4)), "never finer than the image"
    voxels = np.moveaxis(np.indices(view.fixed.array.shape), 0, -1)
    mm = apply_affine(view.fixed.affine, voxels)
    at = np.moveaxis(apply_affine(np.linalg.inv(stored.affine), mm), -1, 0)
    inside = stored.get_fdata() * (mask.get_fdata() > 0)
    expected = ndimage.map_coordinates(inside, at, order=1)
    for shown in (view.fixed, view.moved):  # grey levels know no scale, so the half is the same
        assert np.corrcoef(shown.array.ravel(), expected.ravel())[0, 1] > 0.99
    deep = ndimage.map_coordinates((mask.get_fdata() > 0).astype(float), at, order=1) > 0.999
    inferior = at[2] < stored.shape[2] // 2 - 1.5
    superior = at[2] > stored.shape[2] // 2 + 0.5
    assert (view.jacobian.array[deep & inferior] == 2).all()
    assert (view.jacobian.array[deep & superior] == -1).all()
    assert not view.jacobian.array[0].any() and not view.folds.array.any()
    assert view.structures is None


def test_a_fold_is_kept_where_the_mean_would_hide_it(registered):
    fixed, stored, jacobian, _ = registered
    spot = np.array(stored.shape) // 2
    jacobian[tuple(spot)] = -0.01
    view = view_of(fixed, stored.get_fdata(), jacobian, title="one")
    at = apply_affine(view.folds.affine, np.argwhere(view.folds.array))
    distances = np.linalg.norm(at - apply_affine(stored.affine, spot), axis=1)
    assert len(distances) and (distances < np.linalg.norm((4, 5, 6))).all()


@pytest.mark.slow
def test_a_registration_writes_the_view_on_request_alone(tmp_path):
    fixed = write_subject(tmp_path, 1, "T1w", axes="las", spacing_mm=(4.0, 5.0, 6.0))
    moving = write_subject(tmp_path, 2, "T2w")
    images = [str(fixed["image"]), str(moving["image"])]
    flags = ["--optimize-only", "--spacing=8", "--steps=3", "--extract=never"]
    out = tmp_path / "out"
    assert main(["register", *images, f"--out={out}", *flags, "--outputs=all,view3d"]) == 0
    others = {"warp.nii.gz", "moved.nii.gz", "jacobian.nii.gz", "report.html"}
    assert others < {path.name for path in out.iterdir()}
    assert set(volumes(out / "view3d.html")) >= {"fixed", "moved", "jacobian"}
    check_folder(out, overwrite=True)  # a folder with the view is still a run's
