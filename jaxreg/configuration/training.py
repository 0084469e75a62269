"""What a run is: nested frozen dataclasses, from which the flags of `train.py` are made.

`SessionConfig` and `steps` say where and how long; everything else is the run's identity, is saved
in its checkpoints, and is what evaluation and registration rebuild the networks from.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jaxreg.configuration.objective import ObjectiveConfig
from jaxreg.errors import InputError, require_choice, require_share

STEMS = ("fold", "conv")
CONDITIONINGS = ("cin", "hypernet", "none")
DTYPES = ("float32", "bfloat16")
EMBEDDED = Path("runs/embedded")


@dataclass(frozen=True)
class CohortConfig:
    """The data and how they are fed."""

    data: Path | None = None
    """Folder of a prepared cohort; without it, the embedded phantom cohort in runs/embedded."""
    domains: str = "T1w,T2w"
    """Contrasts of the fixed and the moving image, as in the cohort's file names."""
    spacing: float | None = None
    """Resample the cohort to this isotropic spacing in mm on load; none keeps its own."""
    flip: bool = True
    """Mirror left and right at random (both images of a pair alike)."""
    vary: bool = False
    """Stage 2: a random gamma, bias field, blur and noise in what the network sees; not in the
    loss."""
    synth: float = 0.0
    """Stage 2: share of the images that the network sees as made from the labels with random
    contrast (SynthMorph); the loss sees the true ones."""
    cut: float = 0.0
    """Stage 2: share of the images that the network sees without cerebellum and brain stem, as some
    brain extractions leave them (by the labels); the loss sees all."""
    pose: float = 0.0
    """Stage 2: share of the pairs that are turned, shifted and scaled at random, the moving image a
    little further than the fixed one, so that the network does not learn places by heart."""

    def __post_init__(self):
        """Refuse what cannot be two domains or a spacing."""
        parts = self.domains.split(",")
        if len(parts) != 2 or not all(p.isalnum() for p in parts):
            raise InputError(f"--domains: expected FIXED,MOVING, got {self.domains!r}.")
        for name in ("synth", "cut", "pose"):
            require_share(name, getattr(self, name))
        if self.spacing is not None and not 0 < self.spacing <= 100:
            raise InputError(f"--spacing: expected millimetres above 0, got {self.spacing}.")

    @property
    def domain_pair(self) -> tuple[str, str]:
        """(fixed, moving)."""
        fixed, moving = self.domains.split(",")
        return fixed, moving


@dataclass(frozen=True)
class OptimizerConfig:
    """Adam: linear warm-up, constant, cosine to 2 % in the last fifth; global norm clipped."""

    steps: int | None = None
    """Training steps; none is the experiment's number, or a short one on the embedded cohort."""
    batch_size: int = 1
    """Pairs (or images of each domain) a step, over all devices."""
    learning_rate: float = 1e-3
    """Peak learning rate of Adam."""
    warmup_steps: int = 200
    """Steps over which the learning rate rises from 0."""
    clip_norm: float = 1.0
    """Global gradient norm above which gradients are scaled down."""
    seed: int = 0
    """Seed of initialisation, pairs, locations and λ."""

    def __post_init__(self):
        """Refuse numbers that cannot be meant."""
        for name, low in (("steps", 1), ("batch_size", 1), ("warmup_steps", 0), ("seed", 0)):
            value = getattr(self, name)
            if value is not None and value < low:
                raise InputError(
                    f"--{name.replace('_', '-')}: expected at least {low}, got {value}."
                )
        for name in ("learning_rate", "clip_norm"):
            if not getattr(self, name) > 0:
                value = getattr(self, name)
                raise InputError(f"--{name.replace('_', '-')}: expected above 0, got {value}.")


@dataclass(frozen=True)
class ProcessConfig:
    """The processes of one job, each with its share of every batch or of the pairs."""

    coordinator: str | None = None
    """HOST:PORT of process 0, or auto (TPU pod); SLURM and Open MPI are found without it."""
    num_processes: int | None = None
    """How many processes the job has, with --coordinator=HOST:PORT."""
    process_id: int | None = None
    """Which of them this one is, from 0, with --coordinator=HOST:PORT."""
    process_timeout: int = 100
    """Seconds to wait for a process that does not come or has gone silent, until all end."""

    def __post_init__(self):
        """Refuse what does not describe a job."""
        given = self.num_processes is not None, self.process_id is not None
        address = self.coordinator not in (None, "auto")
        if address and not re.fullmatch(r"[^:/\s]+:\d{1,5}", self.coordinator or ""):
            raise InputError(f"--coordinator: expected HOST:PORT or auto, got {self.coordinator}.")
        if any(given) != address or not (all(given) or not any(given)):
            raise InputError(
                "expected --coordinator=HOST:PORT, --num-processes and --process-id together."
            )
        if all(given) and not 0 <= (self.process_id or 0) < (self.num_processes or 0):
            raise InputError(
                f"--process-id: expected 0 to --num-processes − 1, got {self.process_id} of "
                f"{self.num_processes}."
            )
        if self.process_timeout < 1:
            raise InputError(f"--process-timeout: expected seconds, got {self.process_timeout}.")


@dataclass(frozen=True)
class SessionConfig:
    """Where a run is kept and what it tells; no part of its identity."""

    workdir: Path | None = None
    """Folder of the run; default runs/ae, or runs/ and the loss."""
    checkpoint_every: int = 500
    """Steps between checkpoints."""
    validate_every: int = 500
    """Steps between validations, with a picture in TensorBoard; 0 never."""
    validation_pairs: int = 10
    """Neighbouring pairs of the val split that are scored at each validation, at most."""
    log_every: int = 10
    """Steps between TensorBoard scalars."""
    processes: ProcessConfig = field(default_factory=ProcessConfig)

    def __post_init__(self):
        """Refuse intervals that cannot be meant."""
        for name in ("checkpoint_every", "log_every", "validation_pairs"):
            if getattr(self, name) < 1:
                flag = name.replace("_", "-")
                raise InputError(f"--{flag}: expected at least 1, got {getattr(self, name)}.")


@dataclass(frozen=True)
class EncoderConfig:
    """The autoencoders' shape."""

    stem: str = "fold"
    """fold (2×2×2 voxels into channels, features at 1/2, 1/4, 1/8) or conv (at 1, 1/2, 1/4)."""

    def __post_init__(self):
        """Refuse unknown names."""
        require_choice("stem", self.stem, STEMS)


@dataclass(frozen=True)
class NetworkConfig:
    """The registration network's shape and how it sees λ."""

    stem: str = "fold"
    """fold (2×2×2 voxels into channels) or conv (a first convolution at full resolution)."""
    conditioning: str = "cin"
    """cin (instance norm that knows λ), hypernet (kernels made from λ) or none (one λ, --lam)."""
    lam: float | None = None
    """The one λ of --conditioning=none, in [0, 1]."""
    dtype: str = "float32"
    """float32, or bfloat16 for the convolutions, on GPUs and TPUs that have it in hardware;
    parameters, velocity, integration, warp and losses stay float32."""

    def __post_init__(self):
        """Refuse unknown names and a λ that is missing, out of range or not read."""
        require_choice("stem", self.stem, STEMS)
        require_choice("conditioning", self.conditioning, CONDITIONINGS)
        require_choice("dtype", self.dtype, DTYPES)
        if self.conditioning == "none" and (self.lam is None or not 0 <= self.lam <= 1):
            raise InputError(
                f"--lam: expected a number in [0, 1] with --conditioning=none, got {self.lam}."
            )
        if self.conditioning != "none" and self.lam is not None:
            raise InputError("--lam: read only with --conditioning=none; λ is sampled otherwise.")


@dataclass(frozen=True)
class AutoencoderConfig:
    """Stage 1: one autoencoder per domain, trained without pairs by L1 + (1 − LNCC)."""

    cohort: CohortConfig = field(default_factory=CohortConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    session: SessionConfig = field(default_factory=SessionConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)


@dataclass(frozen=True)
class RegistrationConfig:
    """Stage 2: the λ-conditioned velocity network."""

    cohort: CohortConfig = field(default_factory=CohortConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    session: SessionConfig = field(default_factory=SessionConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    encoders: Path | None = None
    """Finished stage 1 run whose encoders nce and nce_mi use; default runs/ae."""
    init_from: Path | None = None
    """Registration run whose parameters are the start (step 0, fresh optimiser)."""
    again: float = 0.0
    """Share of the pairs that the network sees as it already moves them, to add what they still
    need, as later passes ask it to (--passes of register)."""

    def __post_init__(self):
        """Refuse what is no share."""
        require_share("again", self.again)


PRESETS = ("paper", "miccai")
DEFAULT_STEPS = {"ae": 1000, "reg": 10_000}
"""Steps of the experiment at 2 mm."""
EMBEDDED_STEPS = {"ae": 600, "reg": 1500}
"""Steps on the embedded cohort, such that each stage ends within 15 minutes on two cores."""


def preset(stage: str, name: str) -> Any:
    """The default configuration of a stage under a preset; flags override its values.

    `miccai` departs from `paper` by 1024 negatives and symmetry (ContraReg, MICCAI 2022).
    """
    require_choice("preset", name, PRESETS)
    if stage == "ae":
        return AutoencoderConfig()
    if name == "miccai":
        return RegistrationConfig(objective=ObjectiveConfig(nce_locations=1025, symmetric=True))
    return RegistrationConfig()
