"""What an evaluation is: the λ sweep of a run over a split, or the comparison of several runs."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from jaxreg.configuration.training import ProcessConfig
from jaxreg.configuration.unread import refuse_unread
from jaxreg.errors import require_choice

Split = Literal["train", "val", "test"]
Pairs = Literal["neighbours", "all"]


@dataclass(frozen=True)
class EvalConfig:
    """Register the pairs of a split at every λ and score them (Dice, folds, SDlogJ)."""

    workdir: Path | None = None
    """Registration run, default the newest in runs/; with --compare the output folder, default
    runs/compare."""
    data: Path | None = None
    """Folder of a prepared cohort; default the one of the training run."""
    split: Split | None = None
    """Split that is scored; by default test. --compare takes val to choose λ, and test."""
    lambdas: str = "0:1:0.1"
    """FIRST:LAST:STEP (both ends in) or A,B,…, within [0, 1]."""
    pairs: Pairs = "neighbours"
    """neighbours (sorted list, each with the next, last with first) or all (ordered pairs)."""
    compare: tuple[Path, ...] = ()
    """Registration runs to compare: Figures 2 to 4, and a table with statistics."""
    processes: ProcessConfig = field(default_factory=ProcessConfig)

    def __post_init__(self):
        """Refuse unknown names, and what --compare does not read."""
        if self.split is not None:
            require_choice("split", self.split, get_args(Split))
        require_choice("pairs", self.pairs, get_args(Pairs))
        refuse_unread(self)

    @property
    def unread(self) -> dict[str, str]:
        """The split, where several runs are compared."""
        if not self.compare:
            return {}
        return {"split": "not read with --compare, which takes val and test"}
