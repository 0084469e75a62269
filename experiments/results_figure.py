"""The figure of the README: `python experiments/results_figure.py` draws docs/results.tsv.

The table's rows are the means that `experiments/register_split.py` and the other tools gave on the
same pairs (docs/results.md has the commands).
"""

import csv
from dataclasses import dataclass
from pathlib import Path

import tyro
from matplotlib.figure import Figure

COHORTS = {
    "ixi": "IXI, T2w simulated",
    "rendered": "rendered from manual labels",
    "real": "real scans of other scanners",
}
COLOURS = {
    "none": "0.7",
    "syntx (MI, SyN)": "0.65",
    "FireANTs (MI, greedy)": "0.6",
    "greedy (NMI, SVF)": "0.55",
    "elastix (Mattes)": "0.5",
    "ANTs SyN (Mattes)": "0.4",
    "ConvexAdam (MIND-SSC)": "0.2",
    "jaxreg, network alone": "#7fb2e5",
    "jaxreg": "#1f5fa8",
}
"""Methods, in their order from top to bottom."""


@dataclass(frozen=True)
class Config:
    """Draw the table."""

    table: Path = Path("docs/results.tsv")
    """Columns cohort, pairs, method, dice."""
    out: Path = Path("docs/results.png")
    """The picture."""


def main(config: Config) -> None:
    """Write the picture."""
    with config.table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    figure = Figure(figsize=(10, 3.5), layout="constrained")
    axes = figure.subplots(1, len(COHORTS), sharex=True, sharey=True)
    for ax, (cohort, title) in zip(axes, COHORTS.items(), strict=True):
        found = {r["method"]: float(r["dice"]) for r in rows if r["cohort"] == cohort}
        pairs = {r["pairs"] for r in rows if r["cohort"] == cohort}
        for place, (method, colour) in enumerate(COLOURS.items()):
            ax.scatter(found[method], place, s=70, color=colour, zorder=2)
            ax.text(found[method] + 0.014, place, f"{found[method]:.3f}", va="center")
        ax.axvline(found["none"], color="0.85", zorder=1)
        ax.set_title(f"{title}, {'/'.join(sorted(pairs))} pairs", fontsize=10)
        ax.set_yticks(range(len(COLOURS)), list(COLOURS))
        ax.set_xlabel("Dice")
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_xlim(0.37, 0.8)
    axes[0].invert_yaxis()
    figure.savefig(config.out, dpi=110)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
