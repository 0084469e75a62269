"""Several runs on one cohort: what is chosen, compared, reused, refused, and what is drawn."""

import csv
import dataclasses
import itertools
import os
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from docstring_examples import run_examples
from matplotlib.text import Text

import jaxreg
from jaxreg.configuration.serialization import as_json
from jaxreg.configuration.training import (
    CohortConfig,
    NetworkConfig,
    OptimizerConfig,
    RegistrationConfig,
)
from jaxreg.data.cohort import read_cohort
from jaxreg.data.synthetic.phantom import write_phantom_cohort
from jaxreg.data.volumes import Volumes
from jaxreg.errors import InputError
from jaxreg.evaluation import metrics
from jaxreg.evaluation import quality as quality_module
from jaxreg.evaluation.compare_runs import compare
from jaxreg.evaluation.compare_runs.table import COLUMNS, Scored, table
from jaxreg.evaluation.figures import basic, comparison
from jaxreg.evaluation.quality import Quality, quality
from jaxreg.evaluation.report import COLUMNS as RESULT_COLUMNS
from jaxreg.evaluation.results import Sweep, read_sweep, reusable
from jaxreg.models.checkpoint import Checkpoints, Meta
from jaxreg.models.model import (
    Model,
    encoder_of,
    init_encoders,
    init_params,
)

LAMS = [0.0, 0.5, 1.0]
SPACING_MM = 8.0
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    subjects = {"train": 1, "val": 2, "test": 3}
    folder = tmp_path_factory.mktemp("data") / "cohort"
    return write_phantom_cohort(
        folder, shape=(24, 28, 20), spacing_mm=SPACING_MM, subjects=subjects
    )


def config_of(cohort, loss, *, domains="T1w,T2w", lam=None, init_from=None, batch_size=1):
    return RegistrationConfig(
        cohort=CohortConfig(data=cohort, domains=domains),
        optimizer=OptimizerConfig(batch_size=batch_size),
        network=NetworkConfig(conditioning="cin" if lam is None else "none", lam=lam),
        objective=dataclasses.replace(RegistrationConfig().objective, loss=loss),
        init_from=init_from,
    )


def write_run(workdir, config, *, seed, step=2, spacing_mm=(SPACING_MM,) * 3):
    """A run's newest checkpoint, of random parameters whose warps are of a voxel or so."""
    encoder, frozen = None, {}
    if "nce" in config.objective.loss:
        encoder, frozen = encoder_of("fold"), init_encoders(config.cohort.domain_pair, "fold")
    params = init_params(jax.random.key(seed), config, encoder)
    noise = np.random.default_rng(seed)

    def shaken(leaf):
        return np.asarray(leaf + noise.normal(0, 0.02, leaf.shape), np.float32)

    params["network"] = jax.tree.map(shaken, params["network"])
    identity = {"spacing_mm": list(spacing_mm), "encoder_stem": "fold"}
    meta = Meta("reg", as_json(config), identity, {}, step)
    values = {"trainable": params, "frozen": frozen}
    Checkpoints(workdir).save(meta, values, {"count": np.zeros(1)})
    return workdir


@pytest.fixture(scope="module")
def runs(cohort, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    losses = {"mi": 2, "nce_mi": 4, "lncc": 4}
    return [
        write_run(folder / loss, config_of(cohort, loss), seed=i, step=step)
        for i, (loss, step) in enumerate(losses.items())
    ]


@pytest.fixture(scope="module")
def compared(runs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("out") / "compare"
    compare.compare_runs(runs, None, LAMS, folder, every_pair=True)
    return folder


@pytest.mark.parametrize("function", [jaxreg.evaluate, jaxreg.compare_runs])
def test_the_examples_from_python_run(function, runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(runs[0], "run")
    run_examples(function)


def test_errors_from_python_speak_of_arguments(runs):
    with pytest.raises(InputError, match=r"^lambdas: expected"):
        jaxreg.evaluate(runs[0], lambdas=[1.5])
    with pytest.raises(InputError, match="expected runs of different names"):
        jaxreg.compare_runs([runs[0], runs[0]], lambdas=[0.5])


def read(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def subject_dice(folder, name, split, lam):
    """Mean Dice by fixed subject, from results.csv alone: structures, then pairs."""
    rows = [r for r in read(folder / "eval" / name / split / "results.csv") if r["lam"] == lam]
    pairs = sorted({(r["fixed"], r["moving"]) for r in rows})
    mean = {
        pair: np.mean([float(r["dice"]) for r in rows if (r["fixed"], r["moving"]) == pair])
        for pair in pairs
    }
    return np.array(
        [np.mean([v for pair, v in mean.items() if pair[0] == s]) for s in sorted(dict(pairs))]
    )


def test_the_table_holds_what_the_results_say(compared):
    rows = read(compared / "table.csv")
    assert list(rows[0]) == list(COLUMNS)
    assert [r["loss"] for r in rows] == ["no registration", "mi", "nce_mi", "lncc"]
    text = {lam: f"{lam:g}" for lam in LAMS}
    reference = None
    for row in (rows[2], rows[0], rows[1], rows[3]):  # nce_mi first: the others refer to it
        name = row["run"] or "mi"
        if row["run"]:
            means = [subject_dice(compared, name, "val", text[lam]).mean() for lam in LAMS]
            assert float(row["lam"]) == LAMS[int(np.argmax(means))]
            tests = [subject_dice(compared, name, "test", text[lam]) for lam in LAMS]
            best = int(np.argmax([t.mean() for t in tests]))
            assert float(row["lam_test_best"]) == LAMS[best]
            assert float(row["dice_test_best"]) == pytest.approx(tests[best].mean(), rel=1e-5)
        dice = subject_dice(compared, name, "test", row["lam"])
        assert (row["subjects"], row["pairs"]) == ("3", "6") and len(dice) == 3
        assert float(row["dice"]) == pytest.approx(dice.mean(), rel=1e-5)
        assert float(row["dice_sd"]) == pytest.approx(dice.std(ddof=1), rel=1e-4)
        if reference is None:
            reference = dice
            assert row["reference"] == row["dice_difference"] == row["p"] == ""
            continue
        assert row["reference"] == "nce_mi"
        difference = dice - reference
        assert float(row["dice_difference"]) == pytest.approx(difference.mean(), abs=1e-6)
        # Of three subjects any two pairs share one: there is nothing to tell chance from.
        assert row["difference_low"] == row["difference_high"] == row["p"] == ""


def test_the_scores_at_the_choice_are_there_and_of_a_size(compared):
    none, *rows = read(compared / "table.csv")
    assert float(none["hd95_mm"]) > 0 and none["lam"] == none["seconds"] == none["step"] == ""
    for row in rows:
        assert len(row["parameters_sha256"]) == 64 and float(row["seconds"]) > 0
        # Between a voxel's hundredth and the brain's size: not voxels taken for mm or the reverse.
        assert 1 < float(row["hd95_mm"]) < 100
        # exp(v) after exp(−v) is off by interpolation alone, far below a voxel of 8 mm.
        assert 0 < float(row["inverse_consistency_mm"]) < 2
        assert 0 < float(row["sdlogj"]) < 3 and 0 <= float(row["ndv_percent"]) < 50


def test_a_shorter_training_is_flagged(compared):
    notes = {r["run"]: r["note"] for r in read(compared / "table.csv")}
    assert "unequal budget" in notes["mi"] and "2 of 4" in notes["mi"]
    assert notes["lncc"] == notes["nce_mi"] == ""


@pytest.mark.parametrize(("starts", "words"), [("aa", "starts from a"), ("ab", "unequal budget")])
def test_a_common_start_is_named_and_only_different_ones_are_unequal(starts, words):
    def run(start):
        config = RegistrationConfig(init_from=Path(start))
        return compare.Run(
            Path(start), start, start, Model(config, {}, {}, 5, (2.0, 2.0, 2.0)), [0.5]
        )

    notes = compare.budget_notes([run(start) for start in starts])
    assert all(words in note for note in notes)
    assert all(("unequal" in note) == (starts == "ab") for note in notes)


def test_each_structure_has_its_mean_over_pairs(compared, cohort):
    rows = read(compared / "structures.csv")
    assert [r["structure"] for r in rows] == [
        read_cohort(cohort).structures[i] for i in sorted(read_cohort(cohort).structures)
    ]
    chosen = {r["run"]: r["lam"] for r in read(compared / "table.csv")}
    scores = read(compared / "eval" / "lncc" / "test" / "results.csv")
    for row in rows:
        mine = [r for r in scores if r["structure"] == row["structure"]]
        at_choice = [float(r["dice"]) for r in mine if r["lam"] == chosen["lncc"]]
        before = [float(r["dice"]) for r in mine if r["lam"] == ""]
        assert len(before) == int(row["pairs"])
        if before:
            assert float(row["lncc"]) == pytest.approx(np.mean(at_choice), rel=1e-4)
            assert float(row["no registration"]) == pytest.approx(np.mean(before), rel=1e-4)


def test_runs_are_left_as_they_are_and_figures_are_written(compared, runs):
    assert all(sorted(p.name for p in run.iterdir()) == ["checkpoints"] for run in runs)
    for name in ("figure2", "figure3", "figure4"):
        for suffix in ("png", "pdf"):
            assert (compared / f"{name}.{suffix}").stat().st_size > 5000


@pytest.fixture
def counted(monkeypatch):
    """The splits that are evaluated anew."""
    seen = []
    original = compare.evaluate

    def evaluate(model, name, cohort, split, *rest, **kwargs):
        seen.append((name, split))
        return original(model, name, cohort, split, *rest, **kwargs)

    monkeypatch.setattr(compare, "evaluate", evaluate)
    monkeypatch.setattr(compare, "_write_figures", lambda *_: None)
    return seen


def test_results_that_hold_are_taken_from_either_folder(
    compared, runs, tmp_path, counted, monkeypatch
):
    before = (compared / "table.csv").read_bytes()
    compare.compare_runs(runs, None, LAMS, compared, every_pair=True)
    assert not counted and (compared / "table.csv").read_bytes() == before
    run = tmp_path / "mi"
    shutil.copytree(runs[0], run)
    shutil.copytree(compared / "eval" / "mi", run / "eval")
    compare.compare_runs([run], None, LAMS, tmp_path / "out", every_pair=True)
    assert not counted


def test_results_of_other_lams_or_pairs_are_computed_anew(compared, runs, tmp_path, counted):
    folder = tmp_path / "again"
    shutil.copytree(compared, folder)
    compare.compare_runs(runs[:1], None, LAMS, folder)
    assert counted == [("MI", "test")]  # two subjects make the same pairs either way, three do not
    counted.clear()
    compare.compare_runs(runs[:1], None, [0.0, 0.4, 1.0], folder)
    assert counted == [("MI", "val"), ("MI", "test")]


def test_reuse_asks_for_parameters_data_and_time(compared, cohort, tmp_path):
    read_in, folder = read_cohort(cohort), compared / "eval" / "mi" / "test"
    pairs = [("sub-04", "sub-05")]
    digest = next(r for r in read(compared / "table.csv") if r["run"] == "mi")["parameters_sha256"]
    assert reusable(folder, digest, read_in, pairs)
    assert not reusable(folder, "0" * 64, read_in, pairs)
    assert not reusable(tmp_path, digest, read_in, pairs)
    other = tmp_path / "cohort"
    shutil.copytree(cohort, other)
    assert not reusable(folder, digest, read_cohort(other), pairs)
    copy = tmp_path / "results"
    shutil.copytree(folder, copy)
    os.utime(copy / "results.csv", (1, 1))  # older than the cohort
    assert not reusable(copy, digest, read_in, pairs)


def write_results(folder, rows):
    with (folder / "results.csv").open("w", newline="") as file:
        csv.writer(file).writerows([RESULT_COLUMNS, *rows])


def test_a_sweep_is_read_by_pair_lam_and_structure(tmp_path):
    rows = [
        ("b", "a", "", "x", 0.1, 0, 0, 0),
        ("a", "b", "", "x", 0.2, 0, 0, 0),
        ("a", "b", "", "y", 0.3, 0, 0, 0),
        ("a", "b", "0.5", "y", 0.6, 1, 2, 3),
        ("a", "b", "0.5", "x", 0.5, 1, 2, 3),
        ("b", "a", "0.5", "x", 0.4, 4, 5, 6),
    ]
    write_results(tmp_path, rows)
    pairs, structures = [("a", "b"), ("b", "a")], ["x", "y"]
    sweep = read_sweep(tmp_path, [0.5], pairs, structures)
    assert sweep is not None
    np.testing.assert_array_equal(sweep.dice, [[[0.5, 0.6], [0.4, np.nan]]])
    np.testing.assert_array_equal(sweep.plain_dice, [[0.2, 0.3], [0.1, np.nan]])
    np.testing.assert_allclose(sweep.mean_dice, [[0.55, 0.4]])
    np.testing.assert_array_equal(sweep.folds_percent, [[1, 4]])
    np.testing.assert_array_equal(sweep.sdlogj, [[2, 5]])
    np.testing.assert_array_equal(sweep.seconds, [[3, 6]])
    assert read_sweep(tmp_path, [0.5, 1.0], pairs, structures) is None
    assert read_sweep(tmp_path, [0.5], pairs[:1], structures) is None
    assert read_sweep(tmp_path, [0.5], pairs, ["x"]) is None
    write_results(tmp_path, rows[:-1])  # a pair that lacks a λ
    assert read_sweep(tmp_path, [0.5], pairs, structures) is None


def scored(name, dice, *, folds=(0.5, 0.1), chosen=1):
    """A run over the pairs a–b, a–c, b–a with one structure."""
    dice = np.array(dice)[..., None]
    plain = np.array([[0.1], [0.3], [0.6]])
    flat = np.ones((2, 3))
    sweep = Sweep(
        [0.2, 0.8],
        [("a", "b"), ("a", "c"), ("b", "a")],
        ["x"],
        dice,
        plain,
        flat * np.array(folds)[:, None],
        flat,
        flat,
    )
    each = [Quality(2.0, 0.0, 0.1), Quality(4.0, 0.0, 0.1), Quality(9.0, 0.6, 0.1)]
    return Scored(name, name.upper(), name, 3, "hash", "", sweep, chosen, each)


def test_a_row_worked_out_by_hand():
    first = scored("nce_mi", [[0.5, 0.7, 0.8], [0.4, 0.6, 0.9]])
    second = scored("mi", [[0.9, 0.9, 0.9], [0.2, 0.4, 0.6]], folds=(3.0, 0.0))
    none, reference, row = table([first, second], first, [Quality(8.0, 0.0, 0.0)] * 3)
    # Subjects: a = mean of the first two pairs, b = the third.
    assert reference["dice"] == pytest.approx((0.5 + 0.9) / 2)
    assert row["dice"] == pytest.approx((0.3 + 0.6) / 2) and row["lam"] == 0.8
    assert row["dice_sd"] == pytest.approx(0.3 / 2**0.5)
    assert row["dice_difference"] == pytest.approx(((0.3 - 0.5) + (0.6 - 0.9)) / 2)
    assert np.isnan(row["p"])  # a is in all three pairs
    assert row["hd95_mm"] == pytest.approx((3 + 9) / 2)
    assert row["ndv_percent"] == pytest.approx(0.3)
    assert (row["folds_percent"], row["lam_test_best"]) == (0.0, 0.2)
    assert row["dice_test_best"] == pytest.approx(0.9)
    assert row["folds_percent_for_best_dice"] == pytest.approx(3.0)
    assert none["dice"] == pytest.approx((0.2 + 0.6) / 2) and none["hd95_mm"] == 8
    assert np.isnan(reference["dice_difference"]) and np.isnan(reference["p"])


def stub(loss="mi", *, name="run", step=2, **settings):
    config = config_of(Path("cohort"), loss, **settings)
    model = Model(config, {}, {}, step, (2.0, 2.0, 2.0))
    return compare.Run(Path(name), name, name, model, LAMS)


def test_the_budget_is_steps_times_batch_and_a_head_start_counts():
    runs = [stub(step=4), stub(step=2, batch_size=2), stub(step=4, init_from=Path("runs/old"))]
    equal, same, started = compare.budget_notes(runs)
    assert equal == same == "" and "runs/old" in started
    assert "2 of 8" in compare.budget_notes([stub(step=8), stub(step=2)])[1]


def test_a_run_of_one_lam_is_swept_over_that_one(cohort, tmp_path):
    workdir = write_run(tmp_path / "plain", config_of(cohort, "mi", lam=0.3), seed=0)
    (run,) = compare.load_runs([workdir], LAMS)
    assert run.lams == [0.3] and run.label == "MI"


def test_runs_of_one_loss_are_told_by_their_names(runs, tmp_path):
    other = tmp_path / "longer"
    shutil.copytree(runs[0], other)
    labels = [run.label for run in compare.load_runs([runs[0], other, runs[1]], LAMS)]
    assert labels == ["MI (mi)", "MI (longer)", "NCE + MI"]


def test_without_the_papers_method_the_first_run_is_the_reference(
    compared, runs, tmp_path, counted, capsys
):
    folder = tmp_path / "two"
    shutil.copytree(compared, folder)
    rows = compare.compare_runs([runs[2], runs[0]], None, LAMS, folder, every_pair=True)
    assert not counted and [row["reference"] for row in rows[::2]] == ["lncc", "lncc"]
    assert "no run of nce_mi" in capsys.readouterr().out


def refuses(workdirs, folder, *named, data=None, lams=LAMS):
    with pytest.raises(InputError) as caught:
        compare.compare_runs(workdirs, data, lams, folder)
    message = str(caught.value)
    assert "\n" not in message and all(name in message for name in named), message
    assert not folder.is_dir()


def test_what_cannot_be_compared_is_refused_in_one_line(runs, cohort, tmp_path):
    out, mi = tmp_path / "out", runs[0]
    refuses([], out, "--compare")
    refuses([mi], out, "--lambdas", lams=[])
    refuses([mi, tmp_path / "absent"], out, "absent")
    refuses([mi, tmp_path / "other" / "mi"], out, "'mi' twice")
    refuses([mi], out, "absent", data=tmp_path / "absent")
    (tmp_path / "file").touch()
    refuses([mi], tmp_path / "file", "file", "folder")


@pytest.mark.parametrize(
    ("named", "settings", "spacing_mm"),
    [
        (["domains", "T2w,T1w"], {"domains": "T2w,T1w"}, (8.0, 8.0, 8.0)),
        (["spacing", "4."], {}, (4.0, 8.0, 8.0)),
    ],
)
def test_runs_of_other_domains_or_spacings_are_refused(
    runs, cohort, tmp_path, named, settings, spacing_mm
):
    config = config_of(cohort, "mi", **settings)
    other = write_run(tmp_path / "other", config, seed=0, spacing_mm=spacing_mm)
    refuses([runs[0], other], tmp_path / "out", "other", *named)


def test_runs_of_other_cohorts_need_one_to_be_scored_on(runs, cohort, tmp_path):
    other = write_run(tmp_path / "other", config_of(tmp_path / "elsewhere", "mi"), seed=0)
    refuses([runs[0], other], tmp_path / "out", "elsewhere", "--data")


def test_a_cohort_with_no_validation_split_is_refused(runs, cohort, tmp_path):
    data = tmp_path / "cohort"
    shutil.copytree(cohort, data)
    table_path = data / "participants.tsv"
    table_path.write_text(table_path.read_text().replace("\tval", "\ttrain"))
    refuses([runs[0]], tmp_path / "out", "'val'", data=data)


def test_quality_of_a_shift(cohort, monkeypatch):
    pair, domains = ("sub-04", "sub-05"), ("T1w", "T2w")
    images = [(p, d) for p, d in zip(pair, domains, strict=True)]
    volumes = Volumes(read_cohort(cohort), [*images, *((p, "dseg") for p in pair)])

    def one_voxel(*_, **__):
        yield [0.5], jnp.zeros((1, 12, 14, 10, 3)).at[..., 1].set(1.0)

    monkeypatch.setattr(quality_module, "velocities", one_voxel)
    model = Model(config_of(cohort, "mi"), {"network": {}}, {}, 1, (8.0, 8.0, 8.0))
    measured = quality(model, volumes, volumes, pair, 0.5)
    fixed, moving = (volumes.labels(p) for p in pair)
    moved = np.concatenate([moving[:, 2:], moving[:, -1:], moving[:, -1:]], axis=1)
    order = np.array(sorted(volumes.cohort.structures))
    expected = metrics.hd95_mm(fixed, moved, order, (8.0, 8.0, 8.0))
    assert measured.hd95_mm == pytest.approx(np.nanmean(expected), rel=1e-12)
    # exp(−v) undoes the shift of two voxels; were it exp(v), the error would be 4 · 8 mm.
    assert measured.inverse_consistency_mm < 1e-3
    assert measured.ndv_percent == 0


NAMES = ("MI", "Local MI", "NGF", "MIND", "NCE", "NCE + MI", "LNCC (a run of a long name)")
SHAPE = (20, 26, 1)


def pictures(lams, name="MI", chosen=0):
    return comparison.Slices(
        name,
        np.array(lams),
        RNG.random((len(lams), *SHAPE)),
        RNG.normal(scale=0.2, size=(len(lams), *SHAPE, 3)),
        np.linspace(0.5, 0.7, len(lams)),
        chosen,
    )


def lines():
    """Seven runs over four subjects."""
    return [
        comparison.Line(name, np.array(LAMS), RNG.random((3, 4)), RNG.random((3, 4)), i % 3)
        for i, name in enumerate(NAMES)
    ]


def test_curves_are_means_over_subjects_with_the_choice_filled():
    drawn = lines()
    left, right = comparison.dice_and_folds(drawn, baseline=0.3).axes
    for ax, field in ((left, "dice"), (right, "folds_percent")):
        for line, curve, point in zip(drawn, ax.lines[::2], ax.lines[1::2], strict=False):
            mean = getattr(line, field).mean(axis=1)
            np.testing.assert_allclose(np.asarray(curve.get_ydata(), float), mean)
            np.testing.assert_allclose(
                np.asarray(point.get_xydata(), float), [(LAMS[line.chosen], mean[line.chosen])]
            )
            assert curve.get_markerfacecolor() == "white" != point.get_markerfacecolor()
    band = np.asarray(left.collections[0].get_paths()[0].vertices)
    error = drawn[0].dice.std(axis=1, ddof=1) / 2  # of four subjects
    assert band[:, 1].max() == pytest.approx((drawn[0].dice.mean(axis=1) + error).max())
    assert "4 subjects" in left.figure.legends[0].get_title().get_text()
    assert "[%]" in right.get_ylabel() and all("λ" in ax.get_xlabel() for ax in (left, right))


def test_seven_runs_are_told_apart_without_colour():
    left, _ = comparison.dice_and_folds(lines(), baseline=0.3).axes
    looks = {(str(line.get_marker()), str(line._dash_pattern)) for line in left.lines[:14:2]}  # pyright: ignore[reportAttributeAccessIssue]
    assert len(looks) == 7 and len({marker for marker, _ in looks}) == 7


def test_one_subject_has_no_band():
    line = comparison.Line("MI", np.array(LAMS), RNG.random((3, 1)), np.zeros((3, 1)), 0)
    left, _ = comparison.dice_and_folds([line], baseline=0.3).axes
    assert not left.collections


def best():
    runs = [pictures(LAMS, name, 1) for name in NAMES]
    pair = RNG.random((2, *SHAPE))
    figure = comparison.best_registrations(
        pair[0], pair[1], runs, baseline=0.4, spacing_mm=(2.0, 1.0, 3.0)
    )
    return figure, pair, runs


def test_each_run_shows_its_choice_under_the_fixed_edges():
    figure, pair, runs = best()
    axes = np.array(figure.axes).reshape(2, 9)
    for ax, run in zip(axes[0, 2:], runs, strict=True):
        np.testing.assert_array_equal(ax.images[0].get_array(), run.moved[1, ..., 0].T)
    np.testing.assert_array_equal(axes[1, 0].images[0].get_array(), pair[0, ..., 0].T)
    np.testing.assert_array_equal(axes[0, 1].images[0].get_array(), pair[1, ..., 0].T)
    assert axes[1, 1].get_xlabel() == "Dice 0.400"
    assert axes[1, 2].get_xlabel() == "λ = 0.5\nDice 0.600"
    assert all(len(ax.collections) == 1 for ax in axes[1]) and not axes[0, 3].collections


def test_edges_lie_where_the_image_steps():
    step = np.zeros((30, 40, 1))
    step[12:] = 1
    run = comparison.Slices("MI", np.zeros(1), step[None], np.zeros(0), np.zeros(1), 0)
    figure = comparison.best_registrations(step, 0 * step, [run], baseline=0.4)
    (edges,) = figure.axes[4].collections  # on the moving image, second row
    points = np.concatenate([path.vertices for path in edges.get_paths()])
    np.testing.assert_allclose(points[:, 0], 11.5, atol=0.05)  # between voxels 11 and 12


def test_no_text_of_a_figure_is_clipped_or_overlaps():
    for figure in (
        best()[0],
        comparison.dice_and_folds(lines(), baseline=0.3),
        comparison.sweeps(
            RNG.random(SHAPE), RNG.random(SHAPE), [pictures(LAMS, n) for n in NAMES[:2]]
        ),
    ):
        basic.to_rgb(figure)
        drawn = figure.get_tightbbox()  # inches, of what is drawn and lies in its axes' limits
        width, height = figure.get_size_inches()
        assert drawn.x0 >= -0.01 and drawn.y0 >= -0.01
        assert drawn.x1 <= width + 0.01 and drawn.y1 <= height + 0.01
        ticks = {label for ax in figure.axes for label in ax.get_yticklabels()}
        texts = [t for t in figure.findobj(Text) if t.get_text().strip() and t not in ticks]
        boxes = [text.get_window_extent() for text in texts if text.get_visible()]
        for one, other in itertools.combinations(boxes, 2):
            assert not one.padded(-1).overlaps(other.padded(-1))


def test_sweeps_have_a_column_for_each_lam_and_frame_the_choice():
    many = np.round(np.linspace(0, 1, 21), 3)
    swept, alone = pictures(many, "MI", 20), pictures([0.33], "NGF")
    figure = comparison.sweeps(RNG.random(SHAPE), RNG.random(SHAPE), [swept, alone])
    axes = np.array(figure.axes).reshape(4, 13)
    for column, i in enumerate(range(0, 21, 2)):
        assert axes[0, column + 2].get_title() == f"λ = {many[i]:g}"
        shown = axes[0, column + 2].images[0].get_array()
        np.testing.assert_array_equal(shown, swept.moved[i, ..., 0].T)
        assert axes[0, column + 2].spines["left"].get_visible() == (i == 20)
        assert len(axes[2, column + 2].images) == (column == 3)  # 0.33 is nearest to 0.3
    assert [t.get_text() for t in axes[2, 5].texts] == ["λ = 0.33"]


def test_the_same_comparison_gives_the_same_pictures():
    line = lines()
    first, second = (basic.to_rgb(comparison.dice_and_folds(line, baseline=0.3)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
