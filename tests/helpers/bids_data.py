"""A small BIDS data set of phantoms, and the BIDS validator's word on a folder."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from registration_data import write_subject

README = "A data set of phantoms, made by a test to be registered. " * 5


def describe(root: Path) -> None:
    """Write what makes a folder a data set."""
    root.mkdir(parents=True, exist_ok=True)
    values = {"Name": "Phantoms", "BIDSVersion": "1.10.0", "License": "CC0", "Authors": ["A", "B"]}
    (root / "dataset_description.json").write_text(json.dumps({**values, "DatasetType": "raw"}))
    (root / "README.md").write_text(README)


def add_image(
    root: Path,
    name: str,
    index: int = 0,
    *,
    axes: str = "ras",
    spacing_mm: tuple[float, float, float] = (8.0, 8.0, 8.0),
    motion: np.ndarray | None = None,
) -> Path:
    """The image of a phantom under a BIDS name such as `sub-01_ses-a_T1w`."""
    parts, suffix = name.split("_")[:-1], name.split("_")[-1]
    below = [part for part in parts if part.startswith(("sub-", "ses-"))]
    path = root.joinpath(*below, "anat", f"{name}.nii.gz")
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = root.parent / f"{root.name}-phantoms"
    scratch.mkdir(exist_ok=True)
    files = write_subject(scratch, index, suffix, axes=axes, spacing_mm=spacing_mm, motion=motion)
    shutil.move(files["image"], path)
    shutil.rmtree(scratch)
    return path


def validation_errors(root: Path) -> list[str]:
    """Codes and places of the errors that the BIDS validator finds, each in a line."""
    tool = Path(sys.executable).with_name("bids-validator-deno")
    if not tool.is_file():
        pytest.skip("the BIDS validator is not installed (bids-validator-deno, extra test)")
    done = subprocess.run([tool, str(root), "--format", "json"], capture_output=True, text=True)
    report = json.loads(done.stdout)
    issues = report["issues"]["issues"]
    assert report["summary"]["totalFiles"] > 0
    return [
        f"{issue['code']} {issue.get('subCode', '')} {issue.get('location', '')}"
        for issue in issues
        if issue.get("severity", "error") == "error"
    ]
