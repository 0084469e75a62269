"""The page of a run, in a headless Chromium: what a reader sees, moves and clicks."""

import dataclasses
import re
import time

import jax.numpy as jnp
import numpy as np
import pytest
from selenium.webdriver import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select

from jaxreg import spatial
from jaxreg.data.synthetic import simulate
from jaxreg.data.synthetic.phantom import phantom_subject
from jaxreg.errors import InputError
from jaxreg.geometry.grid import Grid
from jaxreg.registration.output.checks import Number
from jaxreg.registration.report.html import write_failure_report
from jaxreg.registration.report.page import (
    Estimate,
    Frame,
    Report,
    write_report,
)

VIEWS = [f"view-{row}-{plane}" for row in (0, 1) for plane in ("axial", "coronal", "sagittal")]
NASTY = "</script><script>window.owned=1</script><img src=x onerror='window.owned=1'>{{data}}\"&"
SHAPE = (31, 36, 28)
FIXED_GRID = Grid(
    (80, 60, 95), np.array([[0, -2, 0, 70.0], [0, 0, 1.5, -60], [3, 0, 0, -75], [0, 0, 0, 1]])
)
"""The file of the fixed image: its axes run upwards, to the left and to the front."""


def display_affine(spacing_mm):
    """The display grid of `made_report` in the fixed image's space."""
    affine = np.diag([spacing_mm, spacing_mm, spacing_mm, 1.0])
    affine[:3, 3] = -60.5, -52.25, -70
    return affine


def made_report(lams: tuple[float, ...] = (0.0, 0.5, 1.0), *, finer: int = 1) -> Report:
    """A phantom pair under a known smooth displacement, halved at each step in λ.

    `finer` refines the grid; the noise that comes with it packs as badly as a scanner's.
    """
    shape, spacing = tuple(finer * n for n in SHAPE), 5 / finer
    rng = np.random.default_rng(0)

    def image(subject, domain):
        phantom = phantom_subject(subject, shape=SHAPE, spacing_mm=5.0, domains=(domain,))
        coarse = phantom.images[domain]
        refined = np.kron(coarse, np.ones((finer, finer, finer), np.float32))
        noise = rng.normal(1, 0.05, shape).astype(np.float32)
        return refined * noise

    fixed, moving = image(0, "T1w"), image(1, "T2w")
    u = simulate.random_displacement(rng, shape, spacing_mm=spacing, rms_mm=6.0, scale_mm=25.0)

    def moved(displacement):
        return np.asarray(spatial.warp(jnp.asarray(moving[..., None]), jnp.asarray(displacement)))

    frames = []
    for k, lam in enumerate(lams):
        part = np.float32(0.5**k) * u
        frames.append(Frame(lam, moved(part)[..., 0], part, 0.1 * k, 0.5 - 0.1 * k))
    return Report(
        title="sub-02_T2w.nii.gz → sub-01_T1w.nii.gz",
        fixed=fixed,
        affine_moved=moving,
        moving=moving[::-1, 2:-3],
        moved=frames[1].moved,
        displacement=frames[1].displacement,
        jacobian=np.asarray(spatial.jacobian_determinant(jnp.asarray(frames[1].displacement))),
        spacing_mm=(spacing, spacing, spacing),
        affine=display_affine(spacing),
        fixed_grid=FIXED_GRID,
        moving_spacing_mm=(spacing, spacing, spacing),
        frames=tuple(frames),
        spread_mm=np.linalg.norm(u, axis=-1),
        numbers=(
            Number("Folding voxels", "0.000 %", "pass", "below 0.1 % is fine"),
            Number("Similarity", "0.21 → 0.20", "warn", "it should rise"),
            Number("Time", "31 s", "info", "in all"),
        ),
        warnings=("no mask was given",),
        provenance={"jaxreg": "0.1", "settings": {"lam": 0.5, "steps": [1, 2]}},
        lam=0.5,
    )


@pytest.fixture(scope="module")
def report():
    return made_report()


def test_the_page_has_a_legend_for_the_map_of_the_estimate(report, tmp_path):
    estimate = Estimate((("Left-Thalamus", "0.81"),), b"picture")
    write_report(tmp_path / "map.html", dataclasses.replace(report, estimate=estimate))
    write_report(tmp_path / "none.html", report)
    page = (tmp_path / "map.html").read_text(encoding="utf-8")
    assert '<th scope="row">Left-Thalamus</th><td>0.81</td>' in page
    assert "data:image/png;base64,cGljdHVyZQ==" in page
    colours = re.findall(r'fill="(#[0-9a-f]{6})"/></svg> ([^<]*)</span>', page)
    assert len(dict(colours)) == 5
    assert [words for _, words in colours][::4] == ["below 0.5", "0.8 and above"]
    assert "Estimated Dice by structure" not in (tmp_path / "none.html").read_text(encoding="utf-8")


def test_the_moving_image_may_have_other_units_than_the_moved_ones(report, tmp_path):
    other = dataclasses.replace(report, moving=1024 * report.moving)
    for name, content in (("one.html", report), ("other.html", other)):
        write_report(tmp_path / name, content)
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "other.html").read_bytes()


@pytest.fixture
def page(browser, report, tmp_path):
    """The report, opened afresh; no test may leave an error on the console."""
    write_report(tmp_path / "report.html", report)
    open_page(browser, tmp_path / "report.html")
    yield browser
    assert browser.get_log("browser") == []


def open_page(browser, path):
    browser.get(path.as_uri())
    deadline = time.monotonic() + 300
    while browser.execute_script("return document.documentElement.dataset.state") != "ready":
        assert time.monotonic() < deadline, browser.find_element(By.ID, "trouble").text
        time.sleep(0.05)


def pictures(browser):
    """Every canvas's pixels as text, once it is drawn."""
    script = """
        const done = arguments[1];
        requestAnimationFrame(() => requestAnimationFrame(() => done(
            arguments[0].map((id) => document.getElementById(id).toDataURL()))));
    """
    return dict(zip(VIEWS, browser.execute_async_script(script, VIEWS), strict=True))


def changed(browser, action):
    """Names of the canvases that an action changes."""
    before = pictures(browser)
    action()
    after = pictures(browser)
    return {name for name in VIEWS if before[name] != after[name]}


def of_row(row):
    return {name for name in VIEWS if name.startswith(f"view-{row}")}


def press(browser, element, key):
    return lambda: browser.find_element(By.ID, element).send_keys(key)


def choose(browser, element, value):
    return lambda: Select(browser.find_element(By.ID, element)).select_by_value(value)


def test_a_slice_slider_obeys_the_keyboard_and_moves_its_plane(page):
    page.find_element(By.ID, "crosshair").click()  # else its lines move in the other planes
    moved = changed(page, press(page, "slice-coronal", Keys.ARROW_RIGHT))
    assert moved == {"view-0-coronal", "view-1-coronal"}
    assert page.find_element(By.ID, "index-coronal").text == f"y {-52.25 + 5 * 19:.1f} mm"


def test_the_crosshair_is_read_in_the_fixed_images_millimetres_and_voxels(page, report):
    """The middle of the display grid is its voxel (15, 18, 14)."""
    world = report.affine @ [15, 18, 14, 1]
    voxel = np.rint(np.linalg.solve(FIXED_GRID.affine, world))[:3].astype(int)
    assert (0 <= voxel).all() and (voxel < FIXED_GRID.shape).all()
    text = page.find_element(By.ID, "readout").text
    assert f"fixed image: {', '.join(f'{v:.1f}' for v in world[:3])} mm (RAS)" in text
    assert f"voxel {', '.join(map(str, voxel))}, counted from 0" in text
    page.find_element(By.ID, "slice-axial").send_keys(Keys.END)
    page.find_element(By.ID, "slice-coronal").send_keys(Keys.END)
    pictures(page)
    assert "outside its voxels" in page.find_element(By.ID, "readout").text


def test_every_picture_and_comparison_looks_different(page):
    seen = {}
    for kind in ("fixed", "moving", "affine", "moved", "grid", "jacobian", "spread"):
        choose(page, "picture-0", kind)()
        for compare in ("none", "edges", "checkerboard"):
            choose(page, "compare", compare)()
            seen[kind, compare] = pictures(page)["view-0-axial"]
    plain = {kind: image for (kind, compare), image in seen.items() if compare == "none"}
    assert len(set(plain.values())) == len(plain)
    for kind in ("affine", "moved"):
        assert len({seen[kind, c] for c in ("none", "edges", "checkerboard")}) == 3
    assert seen["fixed", "none"] == seen["fixed", "edges"]


def test_flicker_alternates_between_the_image_and_the_fixed_one(page):
    choose(page, "picture-0", "fixed")()
    choose(page, "compare", "none")()
    still = pictures(page)
    choose(page, "compare", "flicker")()
    seen, deadline = set(), time.monotonic() + 300
    while len(seen) < 2 and time.monotonic() < deadline:
        seen.add(pictures(page)["view-1-axial"])
        time.sleep(0.1)
    assert seen == {still["view-0-axial"], still["view-1-axial"]}


def test_lambda_slider_changes_moved_grid_and_determinant(page):
    back = page.find_element(By.ID, "lam-result")
    choose(page, "picture-0", "grid")()
    start = pictures(page)
    assert changed(page, press(page, "lam", Keys.ARROW_RIGHT)) == set(VIEWS)
    assert page.find_element(By.ID, "lam-value").text == "λ = 1: similarity 0.300, folds 0.200 %"
    choose(page, "picture-0", "jacobian")()
    assert changed(page, press(page, "lam", Keys.HOME)) == set(VIEWS)
    choose(page, "picture-0", "affine")()
    assert changed(page, press(page, "lam", Keys.END)) == of_row(1)
    choose(page, "picture-0", "grid")()
    back.click()
    assert pictures(page) == start and not back.is_enabled()


@pytest.mark.parametrize("radiological", [False, True])
def test_a_click_moves_the_crosshair_to_the_place(page, radiological):
    if radiological:
        page.find_element(By.ID, "radiological").click()
    canvas = page.find_element(By.ID, "view-0-axial")
    width, height = canvas.size["width"], canvas.size["height"]
    ActionChains(page).move_to_element_with_offset(
        canvas, round(0.25 * width), round(-0.25 * height)
    ).click().perform()
    pictures(page)
    x, y = (
        int(page.find_element(By.ID, f"slice-{plane}").get_attribute("value"))
        for plane in ("sagittal", "coronal")
    )
    across = 0.25 if radiological else 0.75
    assert abs(x - across * SHAPE[0]) <= 1 and abs(y - 0.75 * SHAPE[1]) <= 1


def test_on_a_narrow_screen_each_slider_has_its_row_above_its_two_pictures(page):
    size = page.get_window_size()
    page.set_window_size(500, 900)
    try:
        pictures(page)
        for plane in ("axial", "coronal", "sagittal"):
            upper, lower = (page.find_element(By.ID, f"view-{row}-{plane}").rect for row in (0, 1))
            slider = page.find_element(By.ID, f"slice-{plane}").rect
            assert upper["y"] == lower["y"] and upper["x"] < lower["x"]
            assert slider["y"] < upper["y"]
            assert slider["width"] > 250 and upper["width"] > 150
        assert page.execute_script("return document.body.scrollWidth <= innerWidth")
    finally:
        page.set_window_size(size["width"], size["height"])


@pytest.mark.parametrize("radiological", [False, True])
@pytest.mark.parametrize(
    "plane, right, top", [("axial", 0, 1), ("coronal", 0, 2), ("sagittal", 1, 2)]
)
def test_right_front_and_top_are_where_readers_are_told(
    browser, tmp_path, plane, right, top, radiological
):
    """A bright block at 3/4 of every axis of RAS is in the upper right quarter of each view.

    With the patient's left at the right it is in the upper left one, but for the sagittal view.
    """
    report = made_report((0.0, 0.5))
    fixed = np.zeros(SHAPE, np.float32)
    spot = tuple(round(0.75 * n) for n in SHAPE)
    fixed[tuple(slice(i - 2, i + 3) for i in spot)] = 1
    write_report(tmp_path / "report.html", dataclasses.replace(report, fixed=fixed))
    open_page(browser, tmp_path / "report.html")
    browser.find_element(By.ID, "crosshair").click()
    if radiological:
        browser.find_element(By.ID, "radiological").click()
    choose(browser, "picture-0", "fixed")()
    for other, axis in (("sagittal", 0), ("coronal", 1), ("axial", 2)):
        slider = browser.find_element(By.ID, f"slice-{other}")
        script = "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input'))"
        browser.execute_script(script, slider, spot[axis])
    pictures(browser)
    centre = browser.execute_script(
        """
        const canvas = document.getElementById(arguments[0]);
        const { width, height } = canvas;
        const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
        let n = 0, x = 0, y = 0;
        for (let i = 0; i < data.length; i += 4) {
          if (data[i] < 250) continue;
          n += 1; x += (i / 4) % width; y += Math.floor(i / 4 / width);
        }
        return [(x / n + 0.5) / width, (y / n + 0.5) / height];
        """,
        f"view-0-{plane}",
    )
    expected = [(spot[right] + 0.5) / SHAPE[right], 1 - (spot[top] + 0.5) / SHAPE[top]]
    if radiological and right == 0:
        expected[0] = 1 - expected[0]
    np.testing.assert_allclose(centre, expected, atol=0.02)  # under a voxel


def test_the_page_reads_the_displacement_back(page, report):
    """At the middle of a block of eight voxels it is their mean, to half a step of the packing."""
    field = report.displacement
    x, y, z = (2 * (n // 4) for n in SHAPE)
    mean = field[x : x + 2, y : y + 2, z : z + 2].mean(axis=(0, 1, 2))
    script = """
        const done = arguments[1];
        load().then(({ result: { field } }) =>
            done([displacementAt(field, arguments[0]), field.unit]));
    """
    u, unit = page.execute_async_script(script, [x + 0.5, y + 0.5, z + 0.5])
    np.testing.assert_allclose(u, mean, atol=0.51 * unit)


def test_numbers_flags_warnings_and_provenance_are_text(page):
    rows = [row.text.split("\n") for row in page.find_elements(By.CSS_SELECTOR, ".numbers li")]
    assert rows[0] == ["Folding voxels", "✓ usual", "0.000 %", "below 0.1 % is fine"]
    assert rows[1][1] == "! look" and "usual" not in rows[2][1]
    assert (
        page.find_element(By.CSS_SELECTOR, ".verdict").text
        == "! Checked: look at Similarity, 1 warning"
    )
    assert page.find_element(By.CSS_SELECTOR, ".warnings").text == "no mask was given"
    page.find_element(By.CSS_SELECTOR, ".provenance summary").click()
    table = page.find_element(By.CSS_SELECTOR, ".provenance table").text
    assert "settings.lam 0.5" in table and "settings.steps [1, 2]" in table


def test_a_green_verdict_says_how_far_to_trust_it(report, tmp_path):
    good = dataclasses.replace(report, numbers=report.numbers[:1], warnings=())
    texts = []
    for name, content in (("green.html", good), ("amber.html", report)):
        write_report(tmp_path / name, content)
        texts.append((tmp_path / name).read_text(encoding="utf-8"))
    assert "Green says that nothing stands out, which is no proof" in texts[0]
    assert "Green" not in texts[1]


def test_every_control_has_a_name(page):
    for control in page.find_elements(By.CSS_SELECTOR, "input, select, button, canvas"):
        assert control.accessible_name.strip(), control.get_attribute("id")


def test_without_a_sweep_there_is_no_lambda(browser, report, tmp_path):
    single = dataclasses.replace(report, frames=(), spread_mm=None, lam=None)
    write_report(tmp_path / "report.html", single)
    open_page(browser, tmp_path / "report.html")
    assert not browser.find_element(By.ID, "lam").is_displayed()
    kinds = [
        o.get_attribute("value") for o in Select(browser.find_element(By.ID, "picture-0")).options
    ]
    assert "spread" not in kinds and "jacobian" in kinds
    assert browser.get_log("browser") == []


def test_what_users_type_stays_text(browser, report, tmp_path):
    path = tmp_path / "report.html"
    nasty = dataclasses.replace(
        report,
        title=NASTY,
        numbers=(Number(NASTY, NASTY, "warn", NASTY),),
        warnings=(NASTY,),
        provenance={NASTY: {NASTY: NASTY}, "list": [NASTY]},
    )
    write_report(path, nasty)
    open_page(browser, path)
    assert browser.execute_script("return window.owned") is None
    assert browser.title == NASTY
    assert browser.find_element(By.TAG_NAME, "h1").text == NASTY
    assert browser.find_element(By.CSS_SELECTOR, ".warnings").text == NASTY
    assert not browser.find_elements(By.TAG_NAME, "img")
    write_failure_report(path, NASTY, {NASTY: NASTY})
    browser.get(path.as_uri())
    assert browser.execute_script("return window.owned") is None
    assert browser.find_element(By.ID, "reason").text == NASTY
    assert browser.get_log("browser") == []


def test_a_failure_says_why(browser, tmp_path):
    path = tmp_path / "report.html"
    reason = "moving.nii.gz: expected a 3-D volume, got shape (96, 96, 40, 120)."
    write_failure_report(path, reason, {"fixed": {"path": "t1.nii.gz"}})
    browser.get(path.as_uri())
    text = browser.find_element(By.TAG_NAME, "body").text
    assert text.startswith("Registration failed") and reason in text and "t1.nii.gz" in text
    assert browser.get_log("browser") == []


def test_a_failure_leaves_out_settings_that_were_not_given(tmp_path):
    command = {"also": [], "domains": None, "lam": 0.3, "halfway": False, "init": "none"}
    write_failure_report(tmp_path / "report.html", "no space", {"command": command})
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert not any(f"command.{name}" in page for name in ("also", "domains"))
    assert all(f"command.{name}" in page for name in ("lam", "halfway", "init"))


def test_the_page_runs_only_its_own_script_and_loads_nothing(browser, report, tmp_path):
    path = tmp_path / "report.html"
    write_report(path, report)
    page = path.read_text(encoding="utf-8")
    assert not re.search(r"\b(src|href)\s*=|url\(|@import|\bfetch\(|XMLHttpRequest", page)
    path.write_text(page.replace("</main>", "</main><script>window.owned=1</script>"), "utf-8")
    open_page(browser, path)
    assert browser.execute_script("return window.owned") is None
    assert "Content Security Policy" in browser.get_log("browser")[0]["message"]


def test_equal_reports_give_equal_bytes(report, tmp_path):
    write_report(tmp_path / "one.html", report)
    write_report(tmp_path / "two.html", made_report())
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()


def test_similarity_that_is_not_known_does_not_break_the_page(browser, report, tmp_path):
    frames = [dataclasses.replace(f, similarity=float("nan")) for f in report.frames]
    write_report(tmp_path / "report.html", dataclasses.replace(report, frames=tuple(frames)))
    open_page(browser, tmp_path / "report.html")
    assert browser.get_log("browser") == []


def test_no_folder_no_page(report, tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        write_report(tmp_path / "nowhere" / "report.html", report)


@pytest.mark.slow
def test_a_sweep_of_eleven_at_2_mm_takes_a_few_megabytes(tmp_path):
    report = made_report(tuple(k / 10 for k in range(11)), finer=3)
    assert report.fixed.size > 80 * 96 * 80
    write_report(tmp_path / "report.html", report)
    assert (tmp_path / "report.html").stat().st_size < 8e6
