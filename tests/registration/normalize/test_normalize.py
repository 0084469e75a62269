"""`jaxreg normalize`: what it writes is what its own maps make of its inputs."""

import csv
import json
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from registration_data import motion, same_but_for_timings, write_subject

import jaxreg
from jaxreg.cli import main
from jaxreg.configuration.normalization import NormalizeConfig
from jaxreg.configuration.registration import RegisterConfig
from jaxreg.data import mni152
from jaxreg.errors import InputError
from jaxreg.io import images as images_module
from jaxreg.io.itk_transforms import read_transform
from jaxreg.registration.normalize import normalize as module
from jaxreg.registration.normalize.template import Template

BETWEEN = motion(6, (5, -3, 4))
"""Where the T2w of the subject lies against its T1w."""


def load(path) -> Any:
    return nib.load(path)  # pyright: ignore[reportPrivateImportUsage]


@pytest.fixture(autouse=True, scope="module")
def quick():
    """The registration to the template in three steps on a coarse grid; all else is as it is."""

    def settings(config, template):
        return RegisterConfig(
            **{**vars(plain(config, template)), "optimize_only": True, "spacing": 8.0, "steps": 3}
        )

    plain = module._settings
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_settings", settings)
        yield


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    template = write_subject(folder, 1, "T1w", axes="las")
    names = np.unique(load(template["labels"]).get_fdata()).astype(int)
    table = template["labels"].with_name(template["labels"].name.replace(".nii.gz", ".tsv"))
    rows = [f"{code}\tRegion {code}\n" for code in names if code]
    table.write_text("index\tname\n" + "".join(rows))
    t1w = write_subject(folder, 2, "T1w", axes="psl", spacing_mm=(7.0, 8.0, 6.0))
    t2w = write_subject(folder, 2, "T2w", axes="oblique", motion=BETWEEN)
    return template, t1w, t2w


@pytest.fixture(scope="module")
def argv(files):
    template, t1w, t2w = files
    images = [str(t1w["image"]), str(t2w["image"]), "--mask", str(t1w["mask"])]
    own = ("--template", "image"), ("--template-mask", "mask"), ("--template-labels", "labels")
    return ["normalize", *images, *(s for flag, kind in own for s in (flag, str(template[kind])))]


@pytest.fixture(scope="module")
def run(argv, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "run"
    assert main([*argv, "--out", str(out), "--quiet"]) == 0
    return out


def test_the_command_writes_images_maps_labels_and_volumes(run, files, argv):
    template, t1w, t2w = files
    there = {path.name for path in run.iterdir()}
    assert {"moved.nii.gz", "moved_sub-02_T2w.nii.gz", "rigid_sub-02_T2w.mat"} <= there
    assert {"warp.nii.gz", "inverse_warp.nii.gz", "report.html", "provenance.json"} <= there
    # the second image goes by both maps in one interpolation
    second = load(run / "moved_sub-02_T2w.nii.gz")
    maps = [run / "warp.nii.gz", run / "rigid_sub-02_T2w.mat"]
    image = jaxreg.apply(maps, image=t2w["image"], reference=template["image"]).image
    np.testing.assert_allclose(second.get_fdata(), image.get_fdata(), atol=0.5)  # of 1000
    np.testing.assert_array_equal(second.affine, load(template["image"]).affine)
    # the template's labels on the subject's grid, as the written inverse moves them
    labels = load(run / "atlas_labels.nii.gz")
    assert labels.shape == load(t1w["image"]).shape
    moved = jaxreg.apply(
        run / "inverse_warp.nii.gz",
        labels=template["labels"],
        reference=t1w["image"],
        interpolation="label",
    )
    np.testing.assert_array_equal(np.asarray(labels.dataobj), np.asarray(moved.image.dataobj))
    with (run / "volumes.tsv").open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert list(rows[0]) == ["number", "name", "ml"]  # as in those of a segmentation
    for row in rows:
        count = (np.asarray(labels.dataobj) == int(row["number"])).sum()
        assert row["name"] == f"Region-{row['number']}"
        np.testing.assert_allclose(float(row["ml"]), count * 7 * 8 * 6 / 1000, atol=6e-4)
    assert main([*argv, "--out", str(run), "--quiet"]) == 2  # without --overwrite


def test_the_second_image_is_found_where_it_lies(run):
    matrix = np.asarray(read_transform(run / "rigid_sub-02_T2w.mat")[0])
    points = np.random.default_rng(0).uniform(-60, 60, (200, 3))
    apart = points @ matrix[:3, :3].T + matrix[:3, 3]
    apart -= points @ BETWEEN[:3, :3].T + BETWEEN[:3, 3]
    assert np.linalg.norm(apart, axis=1).mean() < 1.5  # of voxels of 8 mm


def test_python_writes_what_the_command_writes(run, files, tmp_path):
    template, t1w, t2w = files
    subject = jaxreg.normalize(
        [t1w["image"], t2w["image"]],
        template=template["image"],
        template_mask=template["mask"],
        template_labels=template["labels"],
        mask=t1w["mask"],
    )
    assert same_but_for_timings(run, subject.save(tmp_path / "python")) > 10
    assert len(subject.moved) == 2
    for image, name in zip(subject.moved, ("moved", "moved_sub-02_T2w"), strict=True):
        stored = load(run / f"{name}.nii.gz").get_fdata()
        np.testing.assert_allclose(image.get_fdata(), stored, rtol=2.5e-4)  # 12 significant bits
    labels = load(run / "atlas_labels.nii.gz")
    np.testing.assert_array_equal(subject.atlas_labels.dataobj, labels.dataobj)
    assert set(subject.volumes_ml) == {f"Region-{c}" for c in np.unique(labels.dataobj) if c}


def test_a_doubtful_map_of_a_further_image_makes_the_verdict_amber(files, monkeypatch, tmp_path):
    template, t1w, t2w = files
    rigid = module._rigid

    def doubtful(*arguments):
        return rigid(*arguments)._replace(warnings=("the two images are hardly alike",))

    monkeypatch.setattr(module, "_rigid", doubtful)
    own = {f"template{kind}": template[name] for kind, name in (("", "image"), ("_mask", "mask"))}
    found = jaxreg.normalize([t1w["image"], t2w["image"]], mask=t1w["mask"], **own)
    line = f"{t2w['image']}: the two images are hardly alike"
    assert line in found.warnings and found.verdict.state != "green"
    found.save(tmp_path / "out")
    assert line in json.loads((tmp_path / "out" / "provenance.json").read_text())["warnings"]


def test_images_of_one_name_are_refused(argv, files, tmp_path, capsys):
    _, t1w, _ = files
    twice = ["normalize", str(t1w["image"]), *argv[1:], "--out", str(tmp_path / "run")]
    assert main(twice) == 2
    assert "expected images of different names, got sub-02_T1w twice" in capsys.readouterr().err


def test_without_the_template_the_command_that_installs_it_is_named(
    files, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(mni152, "find_mni152", lambda: None)
    assert main(["normalize", str(files[1]["image"]), "--out", str(tmp_path / "run")]) == 2
    assert "pip install ./packages/jaxreg-mni152" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["template_mask", "template_labels"])
def test_files_of_another_template_are_refused_beside_mni152(name, files):
    with pytest.raises(InputError, match=f"--{name.replace('_', '-')}: not read with --template"):
        NormalizeConfig(**{name: files[0]["mask"]})
    assert NormalizeConfig(template="t.nii.gz", **{name: files[0]["mask"]}).template == "t.nii.gz"


def test_of_mni152_the_contrast_decides_which_image_stays(files):
    images: dict[str | None, Any] = {"T1w": files[0]["image"], "T2w": files[0]["image"]}
    template = Template(images, files[0]["mask"], None, None, "")
    assert template.image_for("T1w") == template.image_for("T2w")
    assert str(template.image_for("T1w")) == "mni152_T2w"
    assert str(template.image_for("FLAIR")) == str(template.image_for(None)) == "mni152_T1w"
    whole, mask = (images_module.read(files[0][kind]).array for kind in ("image", "mask"))
    brain = images_module.read(template.image_for("T1w")).array
    np.testing.assert_array_equal(brain, np.where(mask > 0.5, whole, 0))
    config = NormalizeConfig()
    assert module._contrast_of(files[1]["image"], config, {}, template) == "T1w"
    unnamed = files[0]["image"].with_name("image.nii.gz")
    one = Template({None: unnamed}, None, None, None, "")
    assert module._contrast_of(unnamed, config, {}, one) is None


def test_no_image_is_refused_from_python_and_on_the_command_line(files, tmp_path, capsys):
    template = files[0]
    with pytest.raises(InputError, match="at least one image of the subject, got none"):
        jaxreg.normalize([], template=template["image"])
    flags = ["--template", str(template["image"]), "--out", str(tmp_path / "run")]
    assert main(["normalize", *flags]) == 2
    assert "at least one image of the subject, got none" in capsys.readouterr().err
