"""Which pairs of a BIDS data set are taken, by names alone; each case is worked out by hand."""

import pytest

from jaxreg.cli import main
from jaxreg.configuration.bids import BidsSelection
from jaxreg.errors import InputError
from jaxreg.registration.bids.derivatives import derived_name
from jaxreg.registration.bids.pairs import find_pairs


def touch(root, *names):
    """Empty images under BIDS names such as `sub-01_ses-a_T1w`."""
    for name in names:
        below = [part for part in name.split("_")[:-1] if part.startswith(("sub-", "ses-"))]
        path = root.joinpath(*below, "anat", f"{name}.nii.gz")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def found(root, **selection):
    """(name, fixed, moving) of the pairs, and who is left out."""
    _, found = find_pairs(root, BidsSelection(**selection))
    pairs = [(p.name, p.fixed.name.split(".")[0], p.moving.name.split(".")[0]) for p in found.pairs]
    return pairs, found.left_out


def test_each_session_is_a_pair_of_its_own_and_none_mixes_two(tmp_path):
    touch(tmp_path, "sub-01_ses-a_T1w", "sub-01_ses-a_T2w", "sub-01_ses-b_T1w", "sub-01_ses-c_T2w")
    touch(tmp_path, "sub-02_T1w", "sub-02_T2w", "sub-03_FLAIR")
    pairs, left_out = found(tmp_path)
    assert pairs == [
        ("sub-01_ses-a", "sub-01_ses-a_T1w", "sub-01_ses-a_T2w"),
        ("sub-02", "sub-02_T1w", "sub-02_T2w"),
    ]
    assert left_out == {
        "sub-01_ses-b": "no T2w",
        "sub-01_ses-c": "no T1w",
        "sub-03": "no T1w or T2w",
    }


def test_participants_and_sessions_are_chosen_with_or_without_their_prefix(tmp_path):
    for subject in ("01", "02", "03"):
        touch(tmp_path, *(f"sub-{subject}_ses-{s}_{m}" for s in "ab" for m in ("T1w", "T2w")))
    touch(tmp_path, "sub-04_ses-b_T1w", "sub-04_ses-b_T2w")
    pairs, left_out = found(tmp_path, participant_label=("01", "sub-04"), session=("ses-a",))
    assert [name for name, *_ in pairs] == ["sub-01_ses-a"]
    assert left_out == {"sub-04": "no T1w or T2w in ses-a"}
    every, _ = find_pairs(tmp_path, BidsSelection(participant_label=("01",)))
    assert len(every.pairs) == 7 and every.left_out == {}  # the tables are of the whole data set
    with pytest.raises(InputError, match="--participant-label: .*sub-01, .*; got sub-1"):
        found(tmp_path, participant_label=("1",))
    with pytest.raises(InputError, match="--session: .*ses-a, ses-b; got ses-c"):
        found(tmp_path, session=("c",))


def test_of_several_images_the_rules_or_the_user_decide(tmp_path):
    touch(tmp_path, "sub-01_run-2_T1w", "sub-01_run-10_T1w", "sub-01_part-phase_T2w", "sub-01_T2w")
    touch(tmp_path, "sub-02_T1w", "sub-02_acq-a_T2w", "sub-02_acq-b_T2w")
    touch(tmp_path, "sub-03_T1w", "sub-03_part-phase_T2w")
    pairs, left_out = found(tmp_path)
    assert pairs == [("sub-01", "sub-01_run-2_T1w", "sub-01_T2w")]
    assert "--entities acq=a" in left_out["sub-02"]
    assert left_out["sub-03"] == "no T2w that may be taken"
    pairs, _ = found(tmp_path, entities="acq=b")
    assert pairs[1] == ("sub-02", "sub-02_T1w", "sub-02_acq-b_T2w")
    with pytest.raises(InputError, match="--entities: no image has aqc"):
        found(tmp_path, entities="aqc=b")


def test_other_suffixes_and_a_template(tmp_path):
    touch(tmp_path, "sub-01_T1w", "sub-01_FLAIR", "sub-02_T2w")
    assert found(tmp_path, moving="FLAIR")[0] == [("sub-01", "sub-01_T1w", "sub-01_FLAIR")]
    template = tmp_path / "tpl-MNI152NLin2009cAsym_res-01_T1w.nii.gz"
    selection = BidsSelection(template=str(template))
    _, asked = find_pairs(tmp_path, selection, template=template)
    (pair,) = asked.pairs
    assert (pair.fixed, pair.moving.name) == (template, "sub-01_T1w.nii.gz")
    assert asked.left_out == {"sub-02": "no T1w"}
    assert selection.fixed_space == "MNI152NLin2009cAsym"
    assert BidsSelection(template="mni152").fixed_space == "MNI152NLin2009cSym"
    assert BidsSelection(template=str(template), space="mine").fixed_space == "mine"
    with pytest.raises(InputError, match="--space"):
        BidsSelection(template="brain.nii.gz").fixed_space  # noqa: B018


@pytest.mark.parametrize("session", ["", "ses-a"])
def test_images_outside_anat_are_named_with_their_place(tmp_path, session):
    folder = tmp_path / "sub-01" / session
    folder.mkdir(parents=True)
    stem = "_".join(part for part in ("sub-01", session) if part)
    for suffix in ("T1w", "T2w"):
        (folder / f"{stem}_{suffix}.nii.gz").touch()
    with pytest.raises(InputError, match="2 of these images lie outside the folder anat") as caught:
        find_pairs(tmp_path, BidsSelection())
    below = folder.relative_to(tmp_path)
    moved = f"move {below}/{stem}_T1w.nii.gz to {below}/anat/{stem}_T1w.nii.gz."
    assert str(caught.value).endswith(moved)


def test_derivatives_are_no_input(tmp_path):
    touch(tmp_path, "sub-01_T1w", "sub-01_T2w")
    touch(tmp_path / "derivatives" / "other", "sub-01_T1w", "sub-01_desc-preproc_T1w", "sub-09_T1w")
    touch(tmp_path / "sourcedata", "sub-08_T1w", "sub-08_T2w")
    assert [name for name, *_ in found(tmp_path)[0]] == ["sub-01"]


@pytest.mark.parametrize(
    ("source", "entities", "name"),
    [
        ("sub-01_T2w.nii", {"space": "T1w", "desc": "rigid"}, "sub-01_space-T1w_desc-rigid_T2w"),
        ("sub-01_ses-a_acq-x_run-01_T2w.nii.gz", {"space": "T1w", "desc": "rigid"},
         "sub-01_ses-a_acq-x_run-01_space-T1w_desc-rigid_T2w"),
        ("sub-01_chunk-1_T2w.nii.gz", {"space": "A"}, "sub-01_space-A_chunk-1_T2w"),
        ("sub-01_rec-norm_desc-x_T2w.nii.gz", {"desc": "y", "suffix": "mask"},
         "sub-01_rec-norm_desc-y_mask"),
    ],
)  # fmt: skip
def test_entities_stand_in_the_order_of_bids(source, entities, name):
    assert derived_name(source, **entities) == f"{name}.nii.gz"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--out=."], "holds the data set itself"),
        (["--out=sub-01/out"], "derivatives"),
        (["--out=derivatives/fmriprep"], "not jaxreg's derivatives"),
        (["--out=derivatives/x", "--space=MNI"], "--space: read only with --template PATH"),
        (["--out=derivatives/x", "--template=mni152", "--template-mask=a.nii"], "--template-mask"),
        (["--out=derivatives/x", "--template=t.nii", "--fixed=T1w"], "--fixed: not read"),
        (["--out=derivatives/x", "--moving=T1w"], "two kinds of images"),
        (["--out=derivatives/x", "--moving=T1-w"], "--moving: expected letters and digits"),
        (["--out=derivatives/x", "--entities=ses=a"], "--session"),
        (["--out=derivatives/x", "--moving=PDw"], "no PDw"),
        (["--out=derivatives/x", "--template=tpl-A_T1w.nii"], "tpl-A_T1w.nii: no such file"),
        (["--out=derivatives/x", "--lam=0.5"], "--lam: not read with --transform rigid"),
        (["--out=derivatives/x", "--participant-label=07"], "sub-07"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_before_anything_is_written(
    tmp_path, monkeypatch, capsys, flags, words
):
    touch(tmp_path, "sub-01_T1w", "sub-01_T2w")
    touch(tmp_path / "derivatives" / "fmriprep", "sub-01_desc-preproc_T1w")
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path)
    assert main(["bids", ".", *flags]) == 2
    assert words in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_description_that_is_no_json_is_said(tmp_path, capsys):
    touch(tmp_path, "sub-01_T1w", "sub-01_T2w")
    (tmp_path / "dataset_description.json").write_text("{")
    assert main(["bids", str(tmp_path), f"--out={tmp_path / 'derivatives' / 'x'}"]) == 2
    assert "dataset_description.json" in capsys.readouterr().err
