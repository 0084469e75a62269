"""The paper's experiment on a prepared cohort: seven losses, equal budgets, one network.

    python experiments/reproduce.py --data=ixi --out=runs/paper

The same command again continues where it stopped. In order, each part by the command that it
prints: stage 1; a common start of all losses, trained by LNCC, which is none of the paper's six;
every loss for the same number of steps from there; `eval.py --compare`, with λ chosen on the
validation split (Figures 2 to 4, table.csv, 18 neighbouring pairs of `ixi`); every loss at its λ on
all ordered test pairs (all_pairs.tsv); the slope of each validation curve (slopes.tsv). Then, where
asked: the same networks compared on other cohorts (--others); each trained on with another cohort's
own images and compared there (--adapt); and what the contrasts cost (--gap): T1w–T1w by LNCC beside
T1w–T2w by LNCC within the contrast, from the same random start for as many steps.
"""

import csv
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from jaxreg.configuration.objective import COMPARED_LOSSES, CONTRASTIVE_LOSSES

ROOT = Path(__file__).parent.parent
GAP = {
    "t1w_t1w": ("--loss=lncc", "--domains=T1w,T1w"),
    "t1w_t2w": ("--loss=intra_lncc",),
}


@dataclass(frozen=True)
class Config:
    """Equal budgets for every loss."""

    data: Path
    """Folder of a prepared cohort."""
    out: Path
    """Folder of the runs, the figures and the tables."""
    ae_steps: int = 1000
    """Steps of stage 1."""
    start_steps: int = 1500
    """Steps of the common start."""
    steps: int = 800
    """Steps of every loss from there."""
    spacing: float | None = None
    """Train at this spacing in mm (--spacing of train.py; a step at 4 mm takes a sixth of one at
    2 mm); none trains at the cohort's own. Scores are those of the cohort's own grid."""
    others: tuple[Path, ...] = ()
    """Cohorts on which the networks are compared too; λ is chosen on their own validation split."""
    adapt: Path | None = None
    """Cohort that every network is then trained on with; its subjects need no second contrast."""
    adapt_steps: int = 600
    """Steps on that cohort."""
    gap: bool = False
    """Train T1w–T1w by `lncc` and T1w–T2w by `intra_lncc`, start_steps + steps each."""


def main(config: Config) -> None:
    """Run what is not done yet."""
    data, out = f"--data={config.data}", config.out
    train = ["train.py", data]
    if config.spacing is not None:
        train.append(f"--spacing={config.spacing}")
    if not _finished(out / "ae", config.ae_steps):
        _run(*train, "--stage=ae", f"--steps={config.ae_steps}", f"--workdir={out / 'ae'}")
    registration = [*train, "--stage=reg"]
    if not _finished(out / "start", config.start_steps):
        steps = f"--steps={config.start_steps}"
        _run(*registration, "--loss=lncc", steps, f"--workdir={out / 'start'}")
    runs = [out / "all" / loss for loss in COMPARED_LOSSES]
    if not all(_finished(run, config.steps) for run in runs):
        flags = [f"--steps={config.steps}", f"--validate-every={config.steps // 4}"]
        flags += [f"--init-from={out / 'start'}", f"--encoders={out / 'ae'}"]
        _run(*registration, "--loss=all", *flags, f"--workdir={out / 'all'}")
    _write(out / "slopes.tsv", [slopes(run) for run in runs])
    _compare(config.data, runs, out / "compare")
    with (out / "compare" / "table.csv").open(newline="") as file:
        chosen = {row["run"]: row["lam"] for row in csv.DictReader(file) if row["lam"]}
    rows = []
    for run in runs:
        _run("eval.py", data, f"--workdir={run}", "--pairs=all", f"--lambdas={chosen[run.name]}")
        rows.append(_all_pairs(run, chosen[run.name]))
        _write(out / "all_pairs.tsv", rows)
    for cohort in config.others:
        _compare(cohort, runs, out / f"compare_{cohort.name}")
    if config.adapt is not None:
        adapted = [_adapted(config, config.adapt, run) for run in runs]
        _compare(config.adapt, adapted, out / f"compare_adapted_{config.adapt.name}")
    if config.gap:
        steps = f"--steps={config.start_steps + config.steps}"
        for name, flags in GAP.items():
            if not _finished(out / "gap" / name, config.start_steps + config.steps):
                _run(*registration, *flags, steps, f"--workdir={out / 'gap' / name}")
            _run("eval.py", data, f"--workdir={out / 'gap' / name}", "--lambdas=0.1:0.9:0.1")
    print(f"tables and figures are in {out} and {out / 'compare'}")


def _adapted(config: Config, cohort: Path, run: Path) -> Path:
    """A run trained on with another cohort, its encoders as they were."""
    target = config.out / f"adapted_{cohort.name}" / run.name
    if not _finished(target, config.adapt_steps):
        flags = [f"--init-from={run}", f"--steps={config.adapt_steps}", f"--workdir={target}"]
        if config.spacing is not None:
            flags.append(f"--spacing={config.spacing}")
        if run.name in CONTRASTIVE_LOSSES:
            flags.append(f"--encoders={config.out / 'ae'}")
        _run("train.py", "--stage=reg", f"--data={cohort}", f"--loss={run.name}", *flags)
    return target


def _compare(cohort: Path, runs: list[Path], target: Path) -> None:
    _run("eval.py", f"--data={cohort}", "--compare", *map(str, runs), f"--workdir={target}")


def slopes(run: Path) -> dict[str, str]:
    """The last validation of a run, and what Dice gained over the last quarter of its steps."""
    with (run / "validation.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    names = [n for n in table[0] if n.startswith("dice_") and n != "dice_none"]
    last = float(table[-1]["step"])
    earlier = [row for row in table if float(row["step"]) <= 0.75 * last][-1]
    best = max(names, key=lambda name: float(table[-1][name]))
    gain = float(table[-1][best]) - float(earlier[best])
    return {
        "run": run.name,
        "step": table[-1]["step"],
        "lam": best.removeprefix("dice_"),
        "dice": f"{float(table[-1][best]):.4f}",
        "gain_of_last_quarter": f"{gain:+.4f}",
    }


def _all_pairs(run: Path, lam: str) -> dict[str, str]:
    """Mean Dice over all ordered test pairs, and the spread over the fixed subjects' means."""
    with (run / "eval" / "test" / "results.csv").open(newline="") as file:
        rows = [r for r in csv.DictReader(file) if r["lam"] and float(r["lam"]) == float(lam)]
    pairs: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        pairs.setdefault((row["fixed"], row["moving"]), []).append(float(row["dice"] or "nan"))
    subjects: dict[str, list[float]] = {}
    for (fixed, _), dice in pairs.items():
        subjects.setdefault(fixed, []).append(float(np.nanmean(dice)))
    means = [float(np.mean(values)) for values in subjects.values()]
    return {
        "run": run.name,
        "lam": lam,
        "pairs": str(len(pairs)),
        "dice": f"{np.mean(means):.4f}",
        "sd_over_subjects": f"{np.std(means, ddof=1):.4f}",
    }


def _finished(run: Path, steps: int) -> bool:
    """Whether a run has a checkpoint of at least so many steps, and any validation of its end.

    A run that was stopped between the two has its last validation when `train.py` is called again.
    """
    done = max((int(p.name) for p in (run / "checkpoints").glob("[0-9]*")), default=0)
    table = run / "validation.csv"
    if done < steps or not table.is_file():
        return done >= steps
    with table.open(newline="") as file:
        return any(float(row["step"]) >= done for row in csv.DictReader(file))


def _run(script: str, *flags: str) -> None:
    command = [sys.executable, str(ROOT / script), *flags]
    print("$ " + " ".join([Path(sys.executable).name, script, *flags]), flush=True)
    subprocess.run(command, check=True)


def _write(path: Path, rows: list[dict[str, str]]) -> None:
    lines = ["\t".join(rows[0]), *("\t".join(row.values()) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    print(json.dumps(rows[-1]))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
