"""Both stages on a tiny phantom cohort: resuming, self-contained workdirs, the sweep, refusals."""

import contextlib
import csv
import json
import shutil
import warnings
from pathlib import Path

import jax
import numpy as np
import pytest
from docstring_examples import run_examples
from orbax.checkpoint import v1 as ocp

import jaxreg
from jaxreg import distributed
from jaxreg.cli import main
from jaxreg.commands import train
from jaxreg.configuration.objective import LOSS_SPECS, ObjectiveConfig
from jaxreg.configuration.training import CohortConfig, NetworkConfig, RegistrationConfig
from jaxreg.data.cohort import read_cohort
from jaxreg.data.intensities import normalize
from jaxreg.data.label_codes import CLASSES
from jaxreg.data.synthetic.phantom import write_phantom_cohort
from jaxreg.errors import InputError
from jaxreg.evaluation.evaluate import parse_lambdas
from jaxreg.io.images import read_image
from jaxreg.models.checkpoint import Checkpoints, parameters_sha256
from jaxreg.models.model import encoder_of, init_params
from jaxreg.models.release import load_model
from jaxreg.models.run_folder import claimed_by_first
from jaxreg.models.segmentation_model import read_segmentation_model, write_segmentation_model
from jaxreg.networks.segmentation_unet import SegmentationUNet
from jaxreg.training import loop
from jaxreg.training.autoencoder import autoencoder_of
from jaxreg.training.encoders import load_encoders
from jaxreg.training.registration import initialized_from, registration_task

AE = ["train", "--stage=ae", "--validate-every=0"]
REG = ["train", "--stage=reg", "--validate-every=0"]
SMALL = ["--nce-locations=32", "--mi-samples=512"]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    subjects = {"train": 3, "val": 2, "test": 2}
    folder = tmp_path_factory.mktemp("data") / "cohort"
    return write_phantom_cohort(folder, shape=(24, 28, 20), spacing_mm=8.0, subjects=subjects)


@pytest.fixture(scope="module")
def encoders(cohort, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "ae"
    assert main([*AE, f"--data={cohort}", f"--workdir={workdir}", "--steps=4"]) == 0
    return workdir


@pytest.fixture(scope="module")
def nce_mi(cohort, encoders, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "nce_mi"
    argv = [*REG, *SMALL, f"--data={cohort}", f"--encoders={encoders}", f"--workdir={workdir}"]
    assert main([*argv, "--steps=4"]) == 0
    return workdir


def _leaves(workdir: Path, step: int):
    """Hash of all parameters at a step, read without jaxreg's own structure."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Orbax: no sharding was asked for
        loaded = ocp.load_checkpointables(
            str(workdir / "checkpoints" / str(step)), {"params": None}
        )
    return parameters_sha256(loaded["params"])


@pytest.mark.parametrize(
    "flags", [[], ["--weight-average=0.9", "--decay-fraction=0.5", "--convolution=plain"]]
)
def test_an_interrupted_run_ends_bitwise_like_one_that_was_not(cohort, tmp_path, capsys, flags):
    argv = [*REG, "--loss=mi", "--mi-samples=512", f"--data={cohort}", "--checkpoint-every=2"]
    argv += flags
    assert main([*argv, f"--workdir={tmp_path / 'whole'}", "--steps=4"]) == 0
    assert main([*argv, f"--workdir={tmp_path / 'parts'}", "--steps=4"]) == 0
    # What an interruption after step 2 leaves: the later checkpoint is not there.
    shutil.rmtree(tmp_path / "parts" / "checkpoints" / "4")
    assert main([*argv, f"--workdir={tmp_path / 'parts'}", "--steps=4"]) == 0
    assert "resumed at step 2" in capsys.readouterr().out
    assert _leaves(tmp_path / "whole", 4) == _leaves(tmp_path / "parts", 4)


def test_a_run_keeps_the_mean_of_its_training_people(cohort, nce_mi):
    template = load_model(nce_mi).template
    assert template is not None
    subjects = sorted(cohort.glob("sub-*/*_T1w.nii.gz"))
    train = {p for p, split in read_cohort(cohort).participants.items() if split == "train"}
    images = [read_image(path) for path in subjects if path.parent.name in train]
    assert len(images) == 3
    np.testing.assert_allclose(template.affine, images[0].affine, atol=1e-5)
    arrays = np.array([normalize(i.array, i.array != 0) for i in images], np.float64)
    there = (arrays > 0).sum(axis=0)
    mean = np.where(there >= 1.5, arrays.sum(axis=0) / np.maximum(there, 1), 0)
    np.testing.assert_array_equal(template.array > 0, there >= 1.5)
    wanted = 200 * mean / np.percentile(mean[there >= 1.5], 99.5)
    np.testing.assert_allclose(template.array, np.clip(wanted, 0, 200), atol=1.01)


def test_a_finished_run_says_so_and_more_steps_lengthen_it(cohort, encoders, capsys):
    argv = [*AE, f"--data={cohort}", f"--workdir={encoders}"]
    assert main([*argv, "--steps=4"]) == 0
    assert "finished at step 4; nothing to do" in capsys.readouterr().out
    longer = encoders.parent / "longer"
    shutil.copytree(encoders, longer)
    assert main([*AE, f"--data={cohort}", f"--workdir={longer}", "--steps=6"]) == 0
    assert Checkpoints(longer).steps()[-1] == 6


@pytest.mark.parametrize(
    ("steps", "said"), [(4, "finished at step 4; nothing to do"), (5, "resumed at step 4")]
)
def test_what_another_process_saved_before_the_folder_was_claimed_is_continued(
    cohort, encoders, tmp_path, monkeypatch, capsys, steps, said
):
    workdir = tmp_path / "run"
    shutil.copytree(encoders, workdir)
    checkpoints = workdir / "checkpoints"
    shutil.copytree(checkpoints / "4", tmp_path / "newer")
    shutil.rmtree(checkpoints / "4")

    @contextlib.contextmanager
    def claimed_late(folder):
        shutil.copytree(tmp_path / "newer", checkpoints / "4")
        with claimed_by_first(folder):
            yield

    monkeypatch.setattr(loop, "claimed_by_first", claimed_late)
    assert main([*AE, f"--data={cohort}", f"--workdir={workdir}", f"--steps={steps}"]) == 0
    assert said in capsys.readouterr().out
    assert Checkpoints(workdir).steps()[-1] == steps
    assert not list(checkpoints.glob("*damaged*"))


@pytest.mark.slow
def test_the_example_of_train_runs(cohort, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("cohort").symlink_to(cohort)
    run_examples(jaxreg.train)


def test_all_losses_train_one_after_another_and_finished_ones_are_passed(
    cohort, encoders, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(train, "COMPARED_LOSSES", ("ngf", "nce"))  # each takes a compilation
    argv = [*REG, *SMALL, "--loss=all", f"--data={cohort}", f"--encoders={encoders}", "--steps=2"]
    for _ in range(2):
        assert main([*argv, f"--workdir={tmp_path}"]) == 0
    assert capsys.readouterr().out.count("finished at step 2; nothing to do") == 2
    for loss in ("ngf", "nce"):
        assert load_model(tmp_path / loss).config.objective.loss == loss


@pytest.mark.slow
def test_a_loss_within_one_contrast_trains_on_people_who_have_both(cohort, tmp_path, capsys):
    own = tmp_path / "cohort"
    shutil.copytree(cohort, own)
    argv = [*REG, "--loss=intra_lncc", f"--data={own}", "--steps=2"]
    assert main([*argv, f"--workdir={tmp_path / 'run'}"]) == 0
    for subject, lacks in (("sub-01", "T2w"), ("sub-02", "T1w"), ("sub-03", "T1w")):
        (own / subject / f"{subject}_{lacks}.nii.gz").unlink()
    capsys.readouterr()
    assert main([*argv, f"--workdir={tmp_path / 'lacking'}"]) == 2
    assert "both T1w and T2w" in capsys.readouterr().err


def test_another_configuration_in_the_workdir_is_refused(cohort, encoders, capsys):
    before = sorted(p for p in encoders.rglob("*"))
    argv = [*AE, f"--data={cohort}", f"--workdir={encoders}", "--steps=8", "--seed=1"]
    assert main(argv) == 2
    assert "--seed: expected 0 (stored), got 1" in capsys.readouterr().err
    assert sorted(p for p in encoders.rglob("*")) == before


def test_only_network_and_projections_are_trained(nce_mi, encoders):
    model = load_model(nce_mi)
    network = autoencoder_of("fold")
    blank = network.init(jax.random.key(0), jax.numpy.zeros((1, 16, 16, 16, 1)))["params"]
    like = {"trainable": {"T1w": blank, "T2w": blank}, "frozen": {}}
    stored = Checkpoints(encoders).params(4, like)["trainable"]
    for domain, params in model.encoders.items():
        assert parameters_sha256(params) == parameters_sha256(stored[domain]["encoder"])
    fresh = init_params(jax.random.key(0), model.config, encoder_of("fold"))
    assert set(model.params) == {"network", "projections"} == set(fresh)
    for part in fresh:
        assert parameters_sha256(model.params[part]) != parameters_sha256(fresh[part])


def test_segmentation_networks_are_encoders_of_both_domains(cohort, tmp_path):
    channels = {"fine": (4, 6, 8, 8), "coarse": (4, 6)}
    networks = {r: SegmentationUNet(c, CLASSES) for r, c in channels.items()}
    image = jax.numpy.zeros((1, 16, 16, 16, 1))
    params = {r: n.init(jax.random.key(3), image)["params"] for r, n in networks.items()}
    folder, workdir = tmp_path / "networks", tmp_path / "run"
    folder.mkdir()
    write_segmentation_model(folder, params, channels, about="a test")
    argv = [*REG, "--loss=nce", SMALL[0], f"--data={cohort}", f"--encoders={folder}"]
    assert main([*argv, f"--workdir={workdir}", "--steps=2"]) == 0
    model = load_model(workdir)
    assert model.encoder_stem == "segmentation-4-6-8-8"
    stored = read_segmentation_model(folder).params["fine"]
    for domain in ("T1w", "T2w"):
        assert parameters_sha256(model.encoders[domain]) == parameters_sha256(stored)
    assert len(model.params["projections"]["T2w"]) == 3  # the scales of the decoder
    images = [cohort / f"sub-04/sub-04_{domain}.nii.gz" for domain in ("T1w", "T2w")]
    flags = [f"--model={workdir}", "--refine=1", "--extract=never", "--domains=T1w,T2w"]
    assert main(["register", *map(str, images), f"--out={tmp_path / 'out'}", *flags]) == 0


def test_the_word_segmentation_names_the_bundled_network():
    objective = ObjectiveConfig(loss="nce")
    config = RegistrationConfig(objective=objective, encoders=Path("segmentation"))
    encoder, encoders, identity = load_encoders(config)
    assert encoder.channels == (32, 64, 96) and set(encoders) == {"T1w", "T2w"}
    assert identity["encoder_stem"] == "segmentation-32-64-96-128"


def test_autoencoders_of_other_images_are_named(cohort, encoders, tmp_path, monkeypatch):
    def said(folder, **settings):
        lines: list[str] = []
        config = RegistrationConfig(
            cohort=CohortConfig(data=folder, **settings),
            objective=ObjectiveConfig(loss="nce"),
            encoders=encoders,
        )
        registration_task(config, read_cohort(folder), remark=lines.append)
        return [line for line in lines if "autoencoders" in line]

    moved = tmp_path / "moved"
    shutil.copytree(cohort, moved)
    assert said(cohort) == said(moved) == []
    other = write_phantom_cohort(
        tmp_path / "other", shape=(24, 28, 20), spacing_mm=8.0, subjects={"train": 2, "val": 2}
    )
    (image,) = (other / "sub-01").glob("*_T1w.nii.gz")
    image.write_bytes((other / "sub-02/sub-02_T1w.nii.gz").read_bytes())
    here = f"warning: {encoders}: these autoencoders were trained on"
    assert said(other) == [
        f"{here} other images than those of the train split of {other} (on {cohort})."
    ]
    assert said(cohort, spacing=10.0) == [f"{here} voxels of 8 × 8 × 8 mm, not of 10 × 10 × 10 mm."]
    for image in moved.glob("sub-*/*_T2w.nii.gz"):
        image.unlink()
    (line,) = said(moved, domains="T1w,T1w")
    assert line.startswith(f"{here} other images than")
    monkeypatch.setattr(distributed, "index", lambda: 1)  # the first of several processes says it
    assert said(other) == []


def test_a_registration_workdir_is_self_contained_and_can_be_moved(nce_mi, cohort, tmp_path):
    moved = tmp_path / "elsewhere" / "run with spaces"
    shutil.copytree(nce_mi, moved)
    argv = ["eval", f"--workdir={moved}", f"--data={cohort}", "--lambdas=0:1:0.5"]
    assert main(argv) == 0
    folder = moved / "eval" / "test"
    summary = json.loads((folder / "summary.json").read_text())
    assert [row["lam"] for row in summary["lambdas"]] == [0.0, 0.5, 1.0]
    assert summary["parameters_sha256"] == parameters_sha256(load_model(nce_mi).params)
    for name in ("figure2.png", "figure4.png", "figure2.pdf", "figure4.pdf"):
        assert (folder / name).stat().st_size > 1000
    with (folder / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == "fixed,moving,lam,structure,dice,folds_percent,sdlogj,seconds".split(
        ","
    )
    plain = [float(r["dice"]) for r in rows if r["lam"] == "" and r["fixed"] == rows[0]["fixed"]]
    assert 0 < np.mean(plain) < 1
    assert {r["lam"] for r in rows} == {"", "0", "0.5", "1"}


@pytest.mark.slow
def test_a_network_trained_coarsely_is_scored_on_the_cohorts_own_grid(cohort, tmp_path):
    argv = [*REG, "--loss=lncc", f"--data={cohort}", f"--workdir={tmp_path / 'coarse'}"]
    assert main([*argv, "--steps=2", "--spacing=16"]) == 0
    assert main(["eval", f"--workdir={tmp_path / 'coarse'}", "--lambdas=0.5"]) == 0
    summary = json.loads((tmp_path / "coarse" / "eval" / "test" / "summary.json").read_text())
    fine = tmp_path / "fine"
    start = ["--steps=1", f"--init-from={tmp_path / 'coarse'}", "--dtype=bfloat16"]
    assert main([*argv[:-1], f"--workdir={fine}", *start, "--learning-rate=1e-9"]) == 0
    assert main(["eval", f"--workdir={fine}", "--lambdas=0.5"]) == 0
    same = json.loads((fine / "eval" / "test" / "summary.json").read_text())
    none = summary["no_registration"]["dice_mean"]
    assert none == same["no_registration"]["dice_mean"]  # labels of one grid in both


def test_a_start_is_taken_however_the_convolutions_are_computed(nce_mi):
    def begin(**network):
        config = RegistrationConfig(network=NetworkConfig(**network), init_from=nce_mi)
        return initialized_from({"network": {}}, config)

    params, sha256 = begin(convolution="slices", dtype="bfloat16")
    stored = load_model(nce_mi).params
    assert parameters_sha256(params["network"]) == parameters_sha256(stored["network"])
    assert sha256 == parameters_sha256(stored)
    with pytest.raises(InputError, match="expected a network of --stem=conv, got one of fold"):
        begin(stem="conv")
    with pytest.raises(InputError, match="--channels=8,16, got one of 16,32,48,64"):
        begin(channels="8,16")


@pytest.mark.slow
def test_one_domain_twice_trains_and_one_compilation_serves_a_run(cohort, tmp_path, caplog):
    argv = [*REG, "--loss=lncc", f"--data={cohort}", f"--workdir={tmp_path / 'run'}"]
    with jax.log_compiles(), caplog.at_level("WARNING", logger="jax"):
        assert main([*argv, "--steps=4", "--domains=T1w,T1w"]) == 0
    compiled = [
        r.message for r in caplog.records if "Finished XLA compilation of jit(step)" in r.message
    ]
    assert len(compiled) == 1


def test_a_nan_stops_the_run_and_names_step_and_pair(cohort, tmp_path, monkeypatch, capsys):
    spec = LOSS_SPECS["lncc"]._replace(scale=float("nan"))
    monkeypatch.setitem(LOSS_SPECS, "lncc", spec)
    argv = [*REG, "--loss=lncc", f"--data={cohort}", f"--workdir={tmp_path / 'run'}", "--steps=2"]
    assert main(argv) == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert "step 0" in message and "fixed sub-" in message and "λ" in message


@pytest.mark.slow
def test_validation_writes_its_curve(cohort, tmp_path):
    workdir = tmp_path / "run"
    argv = ["train", "--stage=reg", "--loss=lncc", f"--data={cohort}", f"--workdir={workdir}"]
    assert main([*argv, "--steps=2", "--validate-every=1"]) == 0
    with (workdir / "validation.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["1", "2"]
    assert {"dice_none", "dice_0.5", "folds_percent_0.8"} <= set(rows[0])


@pytest.mark.parametrize(
    ("text", "values"),
    [("0:1:0.5", [0, 0.5, 1]), ("0:1:0.3", [0, 0.3, 0.6, 0.9]), ("0.7,0.2", [0.2, 0.7])],
)
def test_lambdas_parse(text, values):
    assert parse_lambdas(text) == pytest.approx(values)


@pytest.mark.parametrize(
    "text", ["", "a", "0:1", "0:1:0", "0:1:-1", "0:2:0.5", "-0.1", "nan", "1:0:1"]
)
def test_lambdas_that_do_not_parse_are_refused(text, nce_mi, cohort, capsys):
    argv = ["eval", f"--workdir={nce_mi}", f"--data={cohort}", f"--lambdas={text}"]
    assert main(argv) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
