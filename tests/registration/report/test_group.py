"""The page over many pairs: its order, its outliers, its pictures, and how fast it opens."""

import io
import itertools

import numpy as np
import pytest
from PIL import Image
from scipy import stats
from selenium.webdriver.common.by import By
from selenium.webdriver.support.select import Select

from jaxreg.data.synthetic.phantom import phantom_subject
from jaxreg.registration.report.group import COLUMNS, OUTLIER, Row, robust_z, write_group_page
from jaxreg.registration.report.thumbnail import HEIGHT, thumbnail

NASTY = "</script><script>window.owned=1</script><img src=x onerror='window.owned=1'>\"&"
SHAPE, SPACING_MM = (44, 52, 40), 4.0


def picture(index):
    """A picture of a phantom and a noisy copy of it; no two are the same."""
    image = phantom_subject(0, shape=SHAPE, spacing_mm=SPACING_MM, domains=("T1w",)).images["T1w"]
    noise = np.random.default_rng(index).normal(1, 0.1, image.shape).astype(np.float32)
    return thumbnail(image, image * noise, (SPACING_MM, SPACING_MM, SPACING_MM))


def row(index, *, state="green", similarity=None, report=True, shown=None, note=""):
    rng = np.random.default_rng(index)
    values = {
        "similarity": rng.normal(0.45, 0.03) if similarity is None else similarity,
        "folds_percent": abs(rng.normal(0, 0.01)),
        "seconds": rng.normal(40, 3),
        "lam": 0.5,
    }
    name = f"sub-{index:03d}"
    link = f"{name}/report.html" if report else None
    return Row(name, f"{name}_T1w ← {name}_T2w", state, note, values, link, shown)


@pytest.fixture(scope="module")
def rows():
    """Sixty pairs: one failed, one red, one an outlier that is green, two amber."""
    made = [row(index) for index in range(56)]
    made.append(Row("lost", "a ← b", "failed", f"input: {NASTY}", {}, None, None))
    made.append(row(57, state="amber", note="folds"))
    made.append(row(58, similarity=0.1))
    made.append(row(59, state="red", shown=picture(0)))
    return made


@pytest.fixture
def page(browser, rows, tmp_path):
    write_group_page(tmp_path / "index.html", rows, title="Pairs in out")
    browser.set_window_size(1440, 900)
    browser.get((tmp_path / "index.html").as_uri())
    yield browser
    assert browser.get_log("browser") == []
    assert browser.execute_script("return window.owned") is None


def names(page):
    return page.execute_script(
        "return [...document.querySelectorAll('#pairs tbody tr')]"
        ".filter((r) => !r.hidden).map((r) => r.dataset.name)"
    )


def test_what_needs_a_look_comes_first(page):
    assert names(page)[:4] == ["lost", "sub-059", "sub-058", "sub-057"]
    first = page.find_elements(By.CSS_SELECTOR, "#pairs tbody tr")
    assert NASTY in first[0].text and "failed" in first[0].text
    assert "similarity: z" in first[2].text and "green" in first[2].text
    assert first[2].find_element(By.CSS_SELECTOR, "td.far").text == "0.100"
    link = first[1].find_element(By.TAG_NAME, "a").get_attribute("href")
    assert link.endswith("/sub-059/report.html") and not first[0].find_elements(By.TAG_NAME, "a")
    assert "1 outlier" in page.find_element(By.CSS_SELECTOR, "[data-sort=similarity]").text


def test_the_table_is_sorted_by_a_click_and_its_missing_values_stay_last(page, rows):
    by_value = sorted(rows[:56] + rows[57:], key=lambda r: float(f"{r.values['similarity']:.6g}"))
    expected = [r.name for r in by_value]
    head = page.find_element(By.CSS_SELECTOR, "#pairs thead [data-sort=similarity]")
    head.click()
    assert names(page) == [*expected, "lost"]  # the worst first
    head.click()
    assert names(page) == [*expected[::-1], "lost"]
    Select(page.find_element(By.ID, "sort")).select_by_value("name")
    assert names(page) == sorted(r.name for r in rows)


def test_it_is_narrowed_by_state_and_name(page):
    Select(page.find_element(By.ID, "show")).select_by_value("outlier")
    assert names(page) == ["sub-058"]
    Select(page.find_element(By.ID, "show")).select_by_value("")
    page.find_element(By.ID, "filter").send_keys("SUB-01")
    assert sorted(names(page)) == [f"sub-{index:03d}" for index in range(10, 20)]
    assert page.find_element(By.ID, "shown").text == "10 of 60 pairs"


@pytest.mark.parametrize("width", [1400, 500])
def test_it_fits_its_width(page, width):
    page.set_window_size(width, 900)
    outer, inner = page.execute_script(
        "return [document.documentElement.scrollWidth, window.innerWidth]"
    )
    assert outer <= inner
    image = page.find_element(By.CSS_SELECTOR, "#pairs img")
    assert image.size["height"] == HEIGHT and image.rect["x"] + image.size["width"] <= width


@pytest.mark.parametrize("width", [1400, 500])
def test_nothing_covers_or_cuts_anything_where_every_number_is_shown(browser, tmp_path, width):
    wide = np.zeros((*SHAPE[:2], 2 * SHAPE[2]), np.float32)
    wide[5:-5, 5:-5, 5:-5] = 1
    values = {column.name: 1234.5 for column in COLUMNS}
    files = f"sub-{'0' * 20}_T1w.nii.gz ← sub-{'1' * 20}_T2w.nii.gz"
    for shown in (picture(0), thumbnail(wide, wide, (SPACING_MM, 3 * SPACING_MM, SPACING_MM))):
        many = [Row("sub-01", files, "amber", "estimated Dice", values, "report.html", shown)] * 2
        write_group_page(tmp_path / "index.html", many, title="all")
        browser.set_window_size(width, 900)
        browser.get((tmp_path / "index.html").as_uri())
        cells = browser.find_elements(By.CSS_SELECTOR, "#pairs tbody tr:first-child td")
        heads = browser.find_elements(By.CSS_SELECTOR, "#pairs thead th button")
        boxes = [e.rect for e in [*cells, *heads] if e.is_displayed()]
        boxes += [browser.find_element(By.CSS_SELECTOR, "#pairs img").rect]
        picture_cell, image = boxes[0], boxes[-1]
        assert image["x"] + image["width"] <= picture_cell["x"] + picture_cell["width"]
        assert all(box["x"] + box["width"] <= width - 20 for box in boxes)
        for one, other in itertools.combinations(boxes[:-1], 2):
            across = min(b["x"] + b["width"] for b in (one, other)) - max(one["x"], other["x"])
            down = min(b["y"] + b["height"] for b in (one, other)) - max(one["y"], other["y"])
            assert across < 0.5 or down < 0.5, (one, other)
        cut = "return arguments[0].filter((e) => e.scrollWidth > e.clientWidth + 1).length"
        assert browser.execute_script(cut, cells) == 0


def test_five_hundred_pairs_with_pictures_open_in_a_second(browser, tmp_path):
    """Of processor time; a busy machine takes longer by the clock. Best of three."""
    shown = [picture(index) for index in range(8)]
    many = [row(index, shown=shown[index % 8]) for index in range(500)]
    write_group_page(tmp_path / "index.html", many, title="500 pairs")
    assert (tmp_path / "index.html").stat().st_size < 6e6
    browser.execute_cdp_cmd("Performance.enable", {})
    browser.get((tmp_path / "index.html").as_uri())
    assert browser.execute_script("return document.querySelectorAll('tbody tr').length") == 500
    metrics = browser.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
    spent = next(m["value"] for m in metrics if m["name"] == "TaskDuration")
    print(f"{spent:.2f} s")
    assert 0 < spent < 10  # a fraction of a second on an idle machine


def test_pictures_are_given_to_those_who_need_a_look_where_pairs_are_many(tmp_path):
    shown = picture(0)
    many = [row(index, shown=shown) for index in range(1100)]
    write_group_page(tmp_path / "index.html", many, title="many")
    assert (tmp_path / "index.html").read_bytes().count(b"data:image/jpeg") == 1000


def test_numbers_that_differ_by_rounding_alone_have_no_histogram(tmp_path):
    rigid = [row(index) for index in range(3)]
    for index, one in enumerate(rigid):
        one.values["affine_determinant"] = 1 + 4e-16 * index
    write_group_page(tmp_path / "index.html", rigid, title="rigid")
    assert (tmp_path / "index.html").is_file()


def test_the_robust_z_score_is_that_of_scipy():
    values = np.random.default_rng(0).gamma(2, size=50)
    mad = stats.median_abs_deviation(values, scale=float(stats.norm.ppf(0.75)))
    expected = (values - np.median(values)) / mad
    np.testing.assert_allclose(robust_z([*values, np.nan])[:-1], expected, rtol=1e-4)
    assert robust_z([*values, np.nan])[-1] == 0


def test_the_robust_z_score_of_few_equal_or_mostly_equal_values():
    assert not robust_z([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 99.0]).any()
    assert not robust_z([2.0] * 20).any()
    assert not robust_z([1.0] * 10 + [1 + 4e-16 * n for n in range(12)]).any()
    score = robust_z([0.0] * 30 + [5.0])
    assert score[-1] > OUTLIER and not score[:-1].any()


def test_a_thumbnail_shows_the_moved_image_upright_with_the_edges_of_the_fixed_one():
    moved = np.zeros(SHAPE, np.float32)
    fixed = np.zeros(SHAPE, np.float32)
    x, y, z = np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij")
    fixed[((x - 22) / 16) ** 2 + ((y - 26) / 20) ** 2 + ((z - 20) / 14) ** 2 < 1] = 100
    moved[:, 40:44, :] = 7.0  # a slab in front
    shown = Image.open(io.BytesIO(thumbnail(fixed, moved, (4.0, 4.0, 4.0))))
    width = [round(HEIGHT * a / b) for a, b in ((44, 52), (44, 40), (52, 40))]
    assert shown.size == (sum(width), HEIGHT)
    pixels = np.asarray(shown, float)
    axial, sagittal = pixels[:, : width[0]], pixels[:, -width[2] :]
    grey = axial.std(axis=2) < 12
    bright = grey & (axial.mean(axis=2) > 180)
    assert abs(np.nonzero(bright)[0].mean() / HEIGHT - (1 - 42 / 52)) < 0.04  # the front is up
    bright = (sagittal.std(axis=2) < 12) & (sagittal.mean(axis=2) > 180)
    assert abs(np.nonzero(bright)[1].mean() / width[2] - 42 / 52) < 0.04
    edges = (axial[..., 0] > 170) & (axial[..., 2] < 110)
    assert 0.01 < edges.mean() < 0.2 and not edges[:3].any()


def test_an_empty_image_has_a_picture_too():
    empty = np.zeros((8, 9, 10), np.float32)
    shown = Image.open(io.BytesIO(thumbnail(empty, empty, (1.0, 2.0, 3.0))))
    assert shown.size[1] == HEIGHT
