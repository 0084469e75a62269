"""`jaxreg register` on small phantoms: files in, complete folder out, the same bytes again.

Oracles: SimpleITK applies the written warps; motions that were put into the headers.
"""

import json
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from opened_files import opened_files
from registration_data import motion, same_but_for_timings, write_subject

from jaxreg.cli import main
from jaxreg.data.synthetic.phantom import write_phantom_cohort
from jaxreg.geometry.grid import Volume
from jaxreg.geometry.transforms import affine_points, invert, map_points
from jaxreg.io.displacement_fields import read_field
from jaxreg.io.images import read, read_image, read_labels, write
from jaxreg.io.itk_transforms import read_transform
from jaxreg.models.model import load_run
from jaxreg.models.release import load_model
from jaxreg.registration.batch import resume
from jaxreg.registration.deformable.method import load_method
from jaxreg.registration.linear import starts
from jaxreg.registration.linear.affine import ImplausibleScales, register_affine
from jaxreg.registration.output.files import STEP_MM

KINDS = "mask", "labels"
DIRECT = ("--optimize-only", "--spacing=4", "--steps=20", "--label-weight=0")
"""The structures of a phantom are no brain's, so their segmentation is no guide."""


def load(path) -> Any:
    return nib.load(path)  # pyright: ignore[reportPrivateImportUsage]


def register(fixed, moving, out, *flags):
    return main(["register", str(fixed), str(moving), f"--out={out}", *map(str, flags)])


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """(fixed T1w of one phantom, LAS anisotropic; moving T2w of another, oblique and moved)."""
    folder = tmp_path_factory.mktemp("pair")
    fixed = write_subject(folder, 1, "T1w", axes="las", spacing_mm=(6.0, 8.0, 9.0))
    moving = write_subject(folder, 2, "T2w", axes="psl", motion=motion(12, (15, -20, 10)))
    return fixed, moving


@pytest.fixture(scope="module")
def run(pair, tmp_path_factory):
    """The folder of a finished run, with labels on both sides."""
    fixed, moving = pair
    out = tmp_path_factory.mktemp("run") / "out"
    labels = [f"--fixed-labels={fixed['labels']}", f"--moving-labels={moving['labels']}"]
    assert register(fixed["image"], moving["image"], out, *DIRECT, *labels) == 0
    return out


@pytest.fixture(scope="module")
def again(pair, run):
    """The same pair from the affine of `run`."""
    fixed, moving = pair
    out = run.parent / "again"
    flags = [*DIRECT, f"--init={run / 'affine.mat'}"]
    assert register(fixed["image"], moving["image"], out, *flags) == 0
    return out


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A network trained for a few steps on phantoms at 8 mm."""
    folder = tmp_path_factory.mktemp("network")
    data = write_phantom_cohort(
        folder / "cohort", shape=(24, 28, 20), spacing_mm=8.0, subjects={"train": 3}
    )
    argv = ["train", "--stage=reg", "--loss=lncc", f"--data={data}", "--validate-every=0"]
    assert main([*argv, f"--workdir={folder / 'run'}", "--steps=30"]) == 0
    return folder / "run"


def test_every_output_is_there_on_the_fixed_grid_with_its_header(pair, run):
    fixed, moving = pair
    names = "moved warp inverse_warp moved_labels jacobian".split()
    texts = {"affine.mat", "provenance.json", "report.html", "thumbnail.jpg", "timings.json"}
    assert {p.name for p in run.iterdir()} == {*(f"{n}.nii.gz" for n in names), *texts}
    reference = load(fixed["image"])
    for name in ("moved", "moved_labels", "jacobian", "warp"):
        image = load(run / f"{name}.nii.gz")
        assert image.shape[:3] == reference.shape
        np.testing.assert_allclose(image.affine, reference.affine, atol=1e-4)
    inverse = load(run / "inverse_warp.nii.gz")
    np.testing.assert_allclose(inverse.affine, load(moving["image"]).affine, atol=1e-4)
    header = load(run / "moved.nii.gz").header
    assert int(header["sform_code"]) == int(reference.header["sform_code"])


def test_simpleitk_moves_the_image_by_the_warp_alone(pair, run):
    fixed, moving = pair
    field = sitk.ReadImage(str(run / "warp.nii.gz"), sitk.sitkVectorFloat64)
    moved = sitk.Resample(
        sitk.ReadImage(str(moving["image"]), sitk.sitkFloat64),
        sitk.ReadImage(str(fixed["image"])),
        sitk.DisplacementFieldTransform(field),
        sitk.sitkLinear,
        0.0,
    )
    wanted = sitk.GetArrayFromImage(moved).transpose(2, 1, 0)
    got = np.asarray(load(run / "moved.nii.gz").dataobj)
    # 12 significant bits are written; a voxel on the border of the field of view may differ
    off = np.abs(got - wanted) > 2.5e-4 * np.abs(wanted) + 1e-2
    assert np.mean(off) < 1e-3


def test_the_warps_are_inverse_to_each_other_inside_the_brain(pair, run):
    fixed, _ = pair
    warp, inverse = (read_field(run / f"{name}.nii.gz") for name in ("warp", "inverse_warp"))
    mask = load(fixed["mask"])
    index = np.argwhere(np.asarray(mask.dataobj) > 0)
    points = index @ mask.affine[:3, :3].T + mask.affine[:3, 3]
    back = map_points([warp, inverse], points)
    # linear interpolation of 8 mm fields; an eighth of a voxel
    assert np.linalg.norm(back - points, axis=1).mean() < 1.0
    exact, residual = invert([warp])(map_points([warp], points))
    assert np.nanmax(residual) < 1e-2
    assert np.linalg.norm(exact - points, axis=1)[np.isfinite(residual)].mean() < 1.0


def test_the_warp_is_the_deformation_and_then_the_affine(run):
    warp = read_field(run / "warp.nii.gz")
    (affine,) = read_transform(run / "affine.mat")
    record = json.loads((run / "provenance.json").read_text())
    np.testing.assert_allclose(affine, record["affine"], atol=1e-6)
    corner = warp.affine[:3, 3]  # far from the brain nothing is deformed
    assert isinstance(affine, np.ndarray)
    wanted = affine[:3, :3] @ corner + affine[:3, 3]
    np.testing.assert_allclose(corner + warp.vectors[0, 0, 0], wanted, atol=STEP_MM / 2 + 1e-4)


def test_registration_helps_and_says_so(run):
    metrics = json.loads((run / "provenance.json").read_text())["metrics"]
    assert metrics["similarity"] > metrics["similarity_affine"] + 0.05
    assert metrics["dice_affine"] > 0.3  # far apart by their headers
    # Voxels of 6 to 9 mm: labels that thin gain nothing beyond the affine, whatever the loss.
    assert metrics["dice"] > metrics["dice_affine"] - 0.05
    assert metrics["folds_percent"] == 0
    assert metrics["inverse_consistency_mm"] < 1


def test_the_same_pair_gives_the_same_bytes(pair, again, run, tmp_path):
    fixed, moving = pair
    flags = [*DIRECT, f"--init={run / 'affine.mat'}"]
    assert register(fixed["image"], moving["image"], tmp_path / "third", *flags) == 0
    assert same_but_for_timings(again, tmp_path / "third") == 8


def test_only_the_outputs_that_are_chosen_are_written(pair, tmp_path, capsys):
    images = pair[0]["image"], pair[1]["image"]
    flags = "--optimize-only", "--spacing=8", "--steps=2", "--extract=never"
    chosen = tmp_path / "chosen"
    assert register(*images, chosen, *flags, "--outputs=affine,inverse_warp") == 0
    assert "report.html" not in capsys.readouterr().out
    names = {"affine.mat", "inverse_warp.nii.gz", "provenance.json", "timings.json"}
    assert {path.name for path in chosen.iterdir()} == names
    assert register(*images, tmp_path / "all", *flags) == 0
    same = (chosen / "inverse_warp.nii.gz", tmp_path / "all" / "inverse_warp.nii.gz")
    assert same[0].read_bytes() == same[1].read_bytes()
    assert register(*images, tmp_path / "x", *flags, "--outputs=warps") == 2
    assert "--outputs" in capsys.readouterr().err and not (tmp_path / "x").exists()


def test_warps_of_larger_voxels_move_as_the_others_do(pair, run, again, tmp_path):
    """The moved image is that of the warp as it is written."""
    images, out = (pair[0]["image"], pair[1]["image"]), tmp_path / "sparse"
    flags = [*DIRECT, f"--init={run / 'affine.mat'}"]
    assert register(*images, out, *flags, "--warp-spacing=9", "--outputs=warp,moved,jacobian") == 0
    sparse, whole = (read_field(folder / "warp.nii.gz") for folder in (out, again))
    np.testing.assert_allclose(sparse.grid.spacing_mm, 9, rtol=1e-6)
    assert sparse.vectors.size < 0.7 * whole.vectors.size
    points = affine_points(whole.affine, np.argwhere(np.ones(whole.grid.shape)).astype(float))
    one, other = (map_points([field], points) for field in (sparse, whole))
    apart = np.linalg.norm(one - other, axis=1)  # of 8 mm at most, found on a grid of 4 mm
    assert apart.mean() < 0.1 and apart.max() < 1.5
    applied = tmp_path / "applied.nii.gz"
    where = f"--image={images[1]}", f"--reference={images[0]}", f"--out={applied}"
    assert main(["apply", str(out / "warp.nii.gz"), *where]) == 0
    moved = load(out / "moved.nii.gz").get_fdata()
    np.testing.assert_allclose(load(applied).get_fdata(), moved, atol=1e-3 * moved.max())
    jacobians = (folder / "jacobian.nii.gz" for folder in (out, again))
    assert len({path.read_bytes() for path in jacobians}) == 1
    assert register(*images, tmp_path / "x", *flags, "--warp-spacing=0") == 2


def test_written_warps_and_determinants_are_short(run):
    steps = np.asarray(load(run / "warp.nii.gz").dataobj, np.float64) * 1024
    np.testing.assert_array_equal(steps, np.rint(steps))
    jacobian = np.asarray(load(run / "jacobian.nii.gz").dataobj)
    assert not (jacobian.view(np.uint32) & 0xFFF).any()


def test_every_input_is_opened_once(pair, tmp_path):
    fixed, moving = pair
    flags = [f"--{r}-{k}={p[k]}" for r, p in (("fixed", fixed), ("moving", moving)) for k in KINDS]
    with opened_files() as counts:
        steps = ("--optimize-only", "--spacing=8", "--steps=2", "--extract=never")
        assert register(fixed["image"], moving["image"], tmp_path / "out", *steps, *flags) == 0
    inputs = [paths[kind].name for paths in pair for kind in ("image", *KINDS)]
    assert {name: counts[name] for name in inputs} == dict.fromkeys(inputs, 1)


def test_provenance_names_inputs_versions_geometry_and_outputs(pair, run):
    fixed, _ = pair
    record = json.loads((run / "provenance.json").read_text())
    assert record["fixed"]["files"]["image"]["path"] == str(fixed["image"])
    assert len(record["fixed"]["files"]["labels"]["sha256"]) == 64
    assert record["fixed"]["axes"] == "LAS" and record["fixed"]["spacing_mm"][0] == 6
    assert {"jaxreg", "jax", "SimpleITK"} <= set(record["versions"])
    assert record["lam"] == 0.8 and set(record["outputs_sha256"]) > {"warp.nii.gz"}
    timings = json.loads((run / "timings.json").read_text())
    assert timings["seconds"]["affine"] > 0 and timings["peak_gigabytes"] > 0.1


def test_convert_takes_the_geometry_from_the_run(run, tmp_path):
    argv = ["convert", str(run / "warp.nii.gz"), "--to=fsl", f"--out={tmp_path / 'fsl.nii.gz'}"]
    assert main(argv) == 0
    assert load(tmp_path / "fsl.nii.gz").shape[3] == 3


def test_apply_repeats_the_run(pair, run, tmp_path):
    fixed, moving = pair
    out = tmp_path / "moved.nii.gz"
    where = [f"--image={moving['image']}", f"--reference={fixed['image']}", f"--out={out}"]
    assert main(["apply", str(run / "warp.nii.gz"), *where]) == 0
    once, again = (np.asarray(load(path).dataobj) for path in (run / "moved.nii.gz", out))
    np.testing.assert_allclose(again, once, rtol=2.5e-4, atol=1e-6 * once.max())
    stored = once.astype(np.float32).view(np.uint32)
    assert not np.any(stored & 0xFFF), "12 significant bits, which compress well"


def test_the_affine_of_a_run_is_a_start_for_another(run, again):
    one, other = (read_field(f / "warp.nii.gz").vectors for f in (run, again))
    np.testing.assert_allclose(one, other, atol=0.05)  # the .mat keeps fewer digits


@pytest.mark.slow
@pytest.mark.parametrize("transform", ["rigid", "affine"])
def test_a_linear_transform_undoes_a_motion_of_the_header(tmp_path, capsys, transform):
    wanted = motion(10, (12, -9, 14))
    fixed = write_subject(tmp_path, 3, "T1w")
    moving = write_subject(tmp_path, 3, "T2w", axes="las", motion=wanted)
    out = tmp_path / "out"
    assert register(fixed["image"], moving["image"], out, f"--transform={transform}") == 0
    (got,) = read_transform(out / "affine.mat")
    assert isinstance(got, np.ndarray)
    mask = read_labels(fixed["mask"])
    points = np.argwhere(mask.array > 0) @ mask.affine[:3, :3].T + mask.affine[:3, 3]
    error = (got - wanted)[:3, :3] @ points.T + (got - wanted)[:3, 3:]
    assert np.linalg.norm(error, axis=0).mean() < 2.0  # a quarter of a voxel
    np.testing.assert_allclose(read(out / "jacobian.nii.gz").array, 1, atol=1e-3)
    assert "λ" not in capsys.readouterr().out


@pytest.mark.slow
def test_a_network_registers_and_its_order_does_not_matter(workdir, tmp_path):
    """T2w fixed and T1w moving: exp(−v) of the network's own order, so the two are inverse."""
    one = write_subject(tmp_path, 1, "T1w")
    other = write_subject(tmp_path, 2, "T2w")
    flags = [f"--model={workdir}", "--init=none", "--lam=0.3"]
    assert register(one["image"], other["image"], tmp_path / "forth", *flags) == 0
    assert register(other["image"], one["image"], tmp_path / "back", *flags) == 0
    forth = read_field(tmp_path / "forth" / "warp.nii.gz")
    back = read_field(tmp_path / "back" / "inverse_warp.nii.gz")
    # The network grid is laid onto the fixed brain, so the two are not the same to the bit.
    assert np.abs(forth.vectors).max() > 0.2
    assert np.abs(forth.vectors - back.vectors).mean() < 0.3 * np.abs(forth.vectors).mean()
    record = json.loads((tmp_path / "back" / "provenance.json").read_text())
    assert record["domains"] == ["T2w", "T1w"]
    assert record["network_grid"]["is"].startswith("that of the network's training, laid onto")
    template = load_run(workdir).template
    assert template is not None
    assert tuple(record["network_grid"]["shape"]) == template.array.shape
    assert len(record["model"]["weights_sha256"]) == 64


@pytest.mark.slow
def test_refinement_raises_similarity_and_leaves_the_weights(workdir, tmp_path):
    one = write_subject(tmp_path, 1, "T1w")
    other = write_subject(tmp_path, 2, "T2w")
    before = {p: p.read_bytes() for p in workdir.rglob("*") if p.is_file()}
    flags = [f"--model={workdir}", "--init=none", "--lam=0.5"]
    assert register(one["image"], other["image"], tmp_path / "plain", *flags) == 0
    assert register(one["image"], other["image"], tmp_path / "refined", *flags, "--refine=15") == 0
    plain, refined = (
        json.loads((tmp_path / n / "provenance.json").read_text())["metrics"]["similarity"]
        for n in ("plain", "refined")
    )
    assert refined > plain + 0.02
    assert before == {p: p.read_bytes() for p in workdir.rglob("*") if p.is_file()}


@pytest.mark.slow
def test_the_linear_start_is_the_one_of_the_best_local_correlation(tmp_path):
    """The moving brain lacks its lower third, which misleads mutual information."""
    fixed = write_subject(tmp_path, 1, "T1w")["image"]
    moving = write_subject(tmp_path, 2, "T2w")["image"]
    whole = read_image(moving)
    array = whole.array.copy()
    array[:, :, : array.shape[2] * 2 // 5] = 0
    write(moving, Volume(array, whole.affine))
    similarity = {}
    for init in ("auto", "none", "rigid", "affine"):
        out = tmp_path / init
        flags = ("--optimize-only", "--spacing=8", "--steps=1", f"--init={init}")
        assert register(fixed, moving, out, *flags) == 0
        record = json.loads((out / "provenance.json").read_text())
        similarity[init] = record["metrics"]["similarity_affine"]
    best = similarity.pop("auto")
    # A rigid map that is the answer is refined by one level more than one that is a start.
    assert best == pytest.approx(max(similarity.values()), abs=2e-3)
    assert max(similarity.values()) > min(similarity.values())


def test_the_estimated_dice_stands_in_every_record(run, pair, tmp_path, capsys):
    """In the provenance, the report, `--json` and the lines; not without segmentation."""
    record = json.loads((run / "provenance.json").read_text())
    numbers = record["metrics"]
    assert 0 <= numbers["estimated_dice_low"] <= numbers["estimated_dice"] <= 1
    estimate = record["estimated_dice"]
    assert estimate["mean"] == numbers["estimated_dice"]
    assert len(estimate["structures"]) > 5
    page = (run / "report.html").read_text()
    assert "What was taken for the brain" in page
    assert "Estimated Dice by structure" in page
    assert "Left-Thalamus" in page
    images = [str(side["image"]) for side in pair]
    flags = ("--optimize-only", "--spacing=8", "--steps=1", "--json")
    assert main(["register", *images, f"--out={tmp_path / 'one'}", *flags]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["estimated_dice"]["mean"] == told["metrics"]["estimated_dice"]
    assert main(["register", *images, f"--out={tmp_path / 'two'}", *flags, "--extract=never"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["estimated_dice"] is None
    assert "estimated_dice" not in told["metrics"]
    assert "What was taken" not in (tmp_path / "two" / "report.html").read_text()


def test_segmentations_take_part_in_the_optimisation_unless_their_weight_is_0(pair, tmp_path):
    images = [str(side["image"]) for side in pair]
    warps = []
    for weight in (4, 0):
        out = tmp_path / str(weight)
        flags = [f"--out={out}", *DIRECT[:-1], f"--label-weight={weight}"]
        assert main(["register", *images, *flags]) == 0
        warps.append(read_field(out / "warp.nii.gz").vectors)
    assert np.abs(warps[0] - warps[1]).max() > 0.1


def test_an_implausible_affine_leaves_the_other_starts(pair, tmp_path, monkeypatch, capsys):
    def stretching(*arguments, mode, **keywords):
        if mode == "affine":
            raise ImplausibleScales("affine: scales of 0.3 to 1.0")
        return register_affine(*arguments, mode=mode, **keywords)

    monkeypatch.setattr(starts, "register_affine", stretching)
    flags = ("--optimize-only", "--spacing=8", "--steps=1")
    fixed, moving = (p["image"] for p in pair)
    assert register(fixed, moving, tmp_path / "segmented", "--transform=affine") == 0
    assert "linear start: segmentation, determinant" in capsys.readouterr().out
    flags = (*flags, "--extract=never")
    assert register(fixed, moving, tmp_path / "auto", *flags) == 0
    assert "linear start: rigid" in (out := capsys.readouterr().out) or "start: none" in out
    assert register(fixed, moving, tmp_path / "affine", *flags, "--init=affine") == 2
    assert "scales of 0.3" in capsys.readouterr().err


@pytest.mark.slow
def test_many_pairs_load_the_network_once_and_know_its_weights(
    workdir, tmp_path, monkeypatch, capsys
):
    """Pairs in either order of the domains; then the same, then with other weights."""
    for index in (1, 2):
        for domain in ("T1w", "T2w"):
            write_subject(tmp_path, index, domain)
    rows = ["forth\tsub-01_T1w.nii.gz\tsub-02_T2w.nii.gz"]
    rows += ["back\tsub-02_T2w.nii.gz\tsub-01_T1w.nii.gz"]
    (tmp_path / "pairs.tsv").write_text("\n".join(["name\tfixed\tmoving", *rows]) + "\n")
    loaded = []

    def load_and_count(path):
        loaded.append(path)
        return load_model(path)

    monkeypatch.setattr(resume, "load_model", load_and_count)
    argv = ["register", f"--pairs={tmp_path / 'pairs.tsv'}", f"--out={tmp_path / 'out'}"]
    argv += ["--init=none", f"--model={workdir}"]
    assert main(argv) == 0
    assert loaded == [workdir]
    domains = [
        json.loads((tmp_path / "out" / name / "provenance.json").read_text())["domains"]
        for name in ("forth", "back")
    ]
    assert domains == [["T1w", "T2w"], ["T2w", "T1w"]]
    assert main(argv) == 0
    assert "2 pairs, 2 of them done already" in capsys.readouterr().out

    def other_weights(config, **how):
        return load_method(config, **how)._replace(weights_sha256="0" * 64)

    monkeypatch.setattr(resume, "load_method", other_weights)
    assert main(argv) == 2
    assert "holds a result of other weights" in capsys.readouterr().err


def test_what_is_ignored_does_not_matter(pair, run, tmp_path):
    """Voxels of the moving image shuffled inside the ignored part: the same warp."""
    fixed, moving = pair
    image = load(moving["image"])
    array = np.asarray(image.dataobj).copy()
    lesion = np.zeros(array.shape, bool)
    lesion[tuple(slice(n // 2 - 2, n // 2 + 2) for n in array.shape)] = True
    array[lesion] = np.random.default_rng(0).permutation(array[lesion])
    write(tmp_path / "ill.nii.gz", Volume(array, image.affine))
    write(tmp_path / "lesion.nii.gz", Volume(lesion.astype(np.uint8), image.affine))
    flags = [*DIRECT, f"--init={run / 'affine.mat'}"]
    ignore = f"--moving-ignore={tmp_path / 'lesion.nii.gz'}"
    cases = {
        "sound": (moving["image"], ignore),
        "ill": (tmp_path / "ill.nii.gz", ignore),
        "seen": (tmp_path / "ill.nii.gz",),
    }
    warps = {}
    for name, (path, *more) in cases.items():
        assert register(fixed["image"], path, tmp_path / name, *flags, *more) == 0
        warps[name] = read_field(tmp_path / name / "warp.nii.gz").vectors
    # millimetres; voxels beside the ignored ones are interpolated from them
    np.testing.assert_allclose(warps["ill"], warps["sound"], atol=0.05)
    assert np.abs(warps["seen"] - warps["sound"]).max() > 1
