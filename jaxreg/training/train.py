"""From a configuration to a finished run: `jaxreg.train`, and what `jaxreg train` does."""

import dataclasses
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jaxreg import distributed
from jaxreg.configuration.training import (
    DEFAULT_STEPS,
    EMBEDDED_STEPS,
    AutoencoderConfig,
    RegistrationConfig,
    SegmentationConfig,
)
from jaxreg.data.cohort import Cohort, automatic_line, read_cohort, scoring_gaps, subjects_of
from jaxreg.data.heads import find_cohorts, labelled
from jaxreg.data.synthetic.embedded import embedded_cohort
from jaxreg.errors import InputError
from jaxreg.io.atomic import require_writable
from jaxreg.io.remarks import WARNING, grouped
from jaxreg.progress import SILENT, Progress, write_line
from jaxreg.training.autoencoder import autoencoder_task, held_out_of
from jaxreg.training.loop import Task, run
from jaxreg.training.own_logger import Logger, load_logger
from jaxreg.training.registration import registration_task
from jaxreg.training.segmentation import segmentation_task
from jaxreg.training.subjects import training_subjects


def train(
    config: AutoencoderConfig | RegistrationConfig | SegmentationConfig,
    *,
    progress: Progress = SILENT,
    log: Logger | None = None,
) -> Path:
    """Train the stage that a configuration describes, or continue its run.

    The settings in force and the validations are printed.

    Args:
        config: `AutoencoderConfig` (stage 1), `RegistrationConfig` (stage 2) or
            `SegmentationConfig`, of `jaxreg.configuration.training`. Without a cohort the first two
            train on the embedded phantoms.
        progress: what shows how far the training is; by default nothing does.
        log: a function that gets each step's number and its values by name (`train/loss`,
            `val/dice_0.5`, …), as TensorBoard does, in the first process; by default the one that
            `config.session.logger` names, or none. A run that continues tells the steps after its
            last checkpoint again.

    Returns:
        The folder of the run, with its checkpoints, `validation.csv` and TensorBoard's files.

    Raises:
        jaxreg.errors.InputError: data or settings that cannot be used, a folder that holds another
            run, or a loss that is not finite.

    Examples:
        >>> import jaxreg
        >>> from pathlib import Path
        >>> from jaxreg.configuration.training import (
        ...     AutoencoderConfig, CohortConfig, OptimizerConfig, SessionConfig
        ... )
        >>> config = AutoencoderConfig(
        ...     CohortConfig(data=Path("cohort")),
        ...     OptimizerConfig(steps=2),
        ...     SessionConfig(workdir=Path("runs/ae"), validate_every=0),
        ... )
        >>> workdir = jaxreg.train(config)  # doctest: +ELLIPSIS
        settings of --stage=ae, in runs/ae:
        ...
        runs/ae: finished at step 2.
        >>> (workdir / "checkpoints").is_dir()
        True
    """
    if log is None and config.session.logger is not None:
        log = load_logger(config.session.logger)
    distributed.start(config.session.processes)
    distributed.rows_of(config.optimizer.batch_size)  # refused before anything is read
    if isinstance(config, SegmentationConfig):
        return _train_segmentation(config, progress, log)
    return _train_on_cohort(config, progress, log)


def _train_on_cohort(
    config: AutoencoderConfig | RegistrationConfig, progress: Progress, log: Logger | None
) -> Path:
    stage = "ae" if isinstance(config, AutoencoderConfig) else "reg"
    embedded = config.cohort.data is None
    cohort = read_cohort(config.cohort.data or embedded_cohort(progress=progress))
    short = embedded and config.optimizer.steps is None
    config = _with_steps(config, (EMBEDDED_STEPS if embedded else DEFAULT_STEPS)[stage])
    name = "ae" if isinstance(config, AutoencoderConfig) else config.objective.loss
    workdir = _folder(config.session.workdir or Path("runs") / name)
    _require_subjects(config, cohort)
    if distributed.index() == 0:
        _say(f"{WARNING}{line}" for line in gaps_of(config, cohort))
    remarks: list[str] = []
    with progress.phase("read the cohort", announced=False):
        if isinstance(config, AutoencoderConfig):
            task = autoencoder_task(config, cohort, remark=remarks.append)
        else:
            task = registration_task(config, cohort, remark=remarks.append)
    _say(grouped(remarks))
    _print_settings(task, workdir)
    if embedded:
        print("embedded phantom cohort: it shows that everything works and is no benchmark.")
    if short:
        print("ends within 15 minutes on two cores.")
    run(task, config.optimizer, config.session, workdir, progress=progress, log=log)
    return workdir


def _train_segmentation(config: SegmentationConfig, progress: Progress, log: Logger | None) -> Path:
    if config.data is None:
        raise InputError("--data: expected folders of labelled subjects, got none.")
    folders = [Path(part) for part in config.data.split(",")]
    config = _with_steps(config, DEFAULT_STEPS["seg"])
    workdir = _folder(config.session.workdir or Path("runs/seg") / config.resolution)
    held_out = [labelled(cohort, "val") for cohort in find_cohorts(folders)]
    if config.session.validate_every and not any(held_out) and distributed.index() == 0:
        _say([f"{WARNING}split val has no labelled subject: no Dice is shown while it trains."])
    remarks: list[str] = []
    with progress.phase("read the cohorts", announced=False):
        task = segmentation_task(config, remark=remarks.append)
    _say(grouped(remarks))
    _print_settings(task, workdir)
    run(task, config.optimizer, config.session, workdir, progress=progress, log=log)
    return workdir


def _with_steps(config: Any, steps: int) -> Any:
    """The configuration with a number of steps where it has none."""
    if config.optimizer.steps is not None:
        return config
    return dataclasses.replace(config, optimizer=dataclasses.replace(config.optimizer, steps=steps))


def _folder(workdir: Path) -> Path:
    """The run's folder, where one can be; what is in it is looked at later."""
    if os.path.exists(workdir):
        if not workdir.is_dir():
            raise InputError(f"{workdir}: expected a folder for the run, got a file.")
    elif distributed.index() == 0:
        require_writable(workdir)
    return workdir


def _require_subjects(config: AutoencoderConfig | RegistrationConfig, cohort: Cohort) -> None:
    """Raise InputError where the train split lacks somebody that the training needs."""
    domains = config.cohort.domain_pair
    if isinstance(config, AutoencoderConfig):
        for domain in domains:
            cohort.members("train", domain)
    else:
        training_subjects(cohort, domains, both_contrasts=config.objective.spec.aligned)


def gaps_of(config: AutoencoderConfig | RegistrationConfig, cohort: Cohort) -> list[str]:
    """Lines on the numbers that this training, and the evaluation after it, cannot compute."""
    domains = config.cohort.domain_pair
    if isinstance(config, AutoencoderConfig):
        missing = [d for d in dict.fromkeys(domains) if not held_out_of(cohort, d)]
        lines = [f"split val has no {d}: no validation loss of its autoencoder." for d in missing]
        return lines if config.session.validate_every else []

    def has(participant: str, kind: str) -> bool:
        return cohort.file(participant, kind).is_file()

    structures = bool(cohort.structures)
    automatic = automatic_line(cohort, subjects_of(cohort.participants, "val"))
    lines = [] if automatic is None else [f"split val: {automatic}"]
    return lines + scoring_gaps(cohort.participants, has, domains, structures=structures)


def _say(lines: Iterable[str]) -> None:
    """Print lines, warnings on standard error; the first process alone has standard output."""
    for line in lines:
        aside = line.startswith(WARNING) or distributed.index() > 0
        write_line(line, stream=sys.stderr if aside else sys.stdout)


def _print_settings(task: Task, workdir: Path) -> None:
    print(f"settings of --stage={task.stage}, in {workdir}:")
    for name, value in _flat(task.config).items():
        print(f"  {name} = {value}")


def _flat(values: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value) if isinstance(value, dict) else {name: value}
    return flat
