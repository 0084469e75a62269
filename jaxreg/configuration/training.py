"""What a run is: nested frozen dataclasses, from which the flags of `train.py` are made.

`SessionConfig` and `steps` say where and how long; everything else is the run's identity, is saved
in its checkpoints, and is what evaluation and registration rebuild the networks from.
"""

import dataclasses
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from jaxreg.configuration.augmentation import AugmentationConfig
from jaxreg.configuration.domains import domain_pair
from jaxreg.configuration.objective import CONTRASTIVE_LOSSES, ObjectiveConfig
from jaxreg.configuration.unread import flag_of, refuse_unread
from jaxreg.errors import InputError, require_choice, require_share

Stem = Literal["fold", "conv"]
Conditioning = Literal["cin", "hypernet", "none"]
Dtype = Literal["float32", "bfloat16"]
ConvolutionForm = Literal["auto", "plain", "slices", "patches"]
"""How a convolution is computed: by the platform, as XLA's own, or in one of two other forms."""
Resolution = Literal["fine", "coarse"]
Voxels = Literal["all", "corner"]
BUNDLED_ENCODERS = "segmentation"
"""What `--encoders` takes in place of a folder: the segmentation network that comes with jaxreg."""
SEGMENTATION_CHANNELS = {"fine": (32, 64, 96, 128), "coarse": (24, 48, 64, 96)}
"""Channels at 1/2, 1/4, 1/8 and 1/16 of the resolution where none are given."""
EMBEDDED = Path("runs/embedded")


def channel_numbers(text: str) -> tuple[int, ...]:
    """The numbers of --channels, such as 32,64.

    Raises:
        InputError: they are not whole numbers above 0.
    """
    parts = text.split(",")
    if not all(p.isascii() and p.isdigit() and int(p) > 0 for p in parts):
        raise InputError(f"--channels: expected numbers such as 32,64, got {text!r}.")
    return tuple(int(p) for p in parts)


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
    """Mirror left and right at random (both images of a pair alike); --no-flip leaves it out."""

    def __post_init__(self):
        """Refuse what cannot be two domains or a spacing."""
        domain_pair(self.domains)
        if self.spacing is not None and not 0 < self.spacing <= 100:
            raise InputError(f"--spacing: expected millimetres above 0, got {self.spacing}.")

    @property
    def domain_pair(self) -> tuple[str, str]:
        """(fixed, moving)."""
        return domain_pair(self.domains)


@dataclass(frozen=True)
class OptimizerConfig:
    """Adam: linear warm-up, constant, cosine to 2 % at the end; global norm clipped."""

    steps: int | None = None
    """Training steps; by default 1000 (ae), 10000 (reg) or 15000 (seg), and on the embedded cohort
    600 (ae) or 1500 (reg)."""
    batch_size: int = 1
    """Pairs (or images of each domain) a step, over all devices."""
    learning_rate: float = 1e-3
    """Peak learning rate of Adam."""
    warmup_steps: int = 200
    """Steps over which the learning rate rises from 0; fewer where --decay-fraction or half of
    --steps leaves less."""
    decay_fraction: float = 0.2
    """Share of the steps, at the end, in which the learning rate falls by a cosine."""
    clip_norm: float = 1.0
    """Global gradient norm above which gradients are scaled down."""
    weight_average: float = 0.0
    """Share of the moving average of the weights that stays in each step, such as 0.999; 0 keeps
    the last weights."""
    seed: int = 0
    """Seed of initialisation, pairs, locations and λ."""

    def __post_init__(self):
        """Refuse numbers that cannot be meant."""
        for name, low in (("steps", 1), ("batch_size", 1), ("warmup_steps", 0), ("seed", 0)):
            value = getattr(self, name)
            if value is not None and value < low:
                raise InputError(f"{flag_of(name)}: expected at least {low}, got {value}.")
        if not 0 < self.decay_fraction <= 1:
            value = self.decay_fraction
            raise InputError(f"--decay-fraction: expected above 0 and at most 1, got {value}.")
        if not 0 <= self.weight_average < 1:
            value = self.weight_average
            raise InputError(f"--weight-average: expected at least 0 and below 1, got {value}.")
        for name in ("learning_rate", "clip_norm"):
            if not getattr(self, name) > 0:
                value = getattr(self, name)
                raise InputError(f"{flag_of(name)}: expected above 0, got {value}.")


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
    """Folder of the run; default runs/ae, runs/LOSS or runs/seg/RESOLUTION."""
    checkpoint_every: int = 500
    """Steps between checkpoints."""
    validate_every: int = 500
    """Steps between validations, with a picture in TensorBoard; 0 never."""
    log_every: int = 10
    """Steps between TensorBoard scalars."""
    logger: str | None = None
    """MODULE:FUNCTION of one's own that gets (step, {name: value}) as TensorBoard does."""
    processes: ProcessConfig = field(default_factory=ProcessConfig)

    def __post_init__(self):
        """Refuse intervals that cannot be meant."""
        for name in ("checkpoint_every", "log_every"):
            if getattr(self, name) < 1:
                raise InputError(
                    f"{flag_of(name)}: expected at least 1, got {getattr(self, name)}."
                )
        if self.logger is not None and not re.fullmatch(r"[^\W\d][\w.]*:[^\W\d]\w*", self.logger):
            raise InputError(f"--logger: expected MODULE:FUNCTION, got {self.logger!r}.")


@dataclass(frozen=True)
class EncoderConfig:
    """The autoencoders' shape."""

    stem: Stem = "fold"
    """fold (2×2×2 voxels into channels, features at 1/2, 1/4, 1/8) or conv (at 1, 1/2, 1/4)."""

    def __post_init__(self):
        """Refuse unknown names."""
        require_choice("stem", self.stem, get_args(Stem))


@dataclass(frozen=True)
class NetworkConfig:
    """The registration network's shape and how it sees λ."""

    channels: str = "16,32,48,64"
    """Channels at 1/2, 1/4, 1/8 … of the resolution, two numbers or more."""
    stem: Stem = "fold"
    """fold (2×2×2 voxels into channels) or conv (a first convolution at full resolution)."""
    conditioning: Conditioning = "cin"
    """cin (instance norm that knows λ), hypernet (kernels made from λ) or none (one λ, --lam)."""
    lam: float | None = None
    """The one λ of --conditioning=none, in [0, 1]."""
    dtype: Dtype = "float32"
    """float32, or bfloat16 for the convolutions, on GPUs and TPUs that have it in hardware;
    parameters, velocity, integration, warp and losses stay float32."""
    convolution: ConvolutionForm = "auto"
    """How training computes convolutions: auto (by the platform), plain, slices or patches."""

    def __post_init__(self):
        """Refuse unknown names, channels and a λ that is missing, out of range or not read."""
        if len(channel_numbers(self.channels)) < 2:
            raise InputError(f"--channels: expected two numbers or more, got {self.channels}.")
        require_choice("stem", self.stem, get_args(Stem))
        require_choice("conditioning", self.conditioning, get_args(Conditioning))
        require_choice("dtype", self.dtype, get_args(Dtype))
        require_choice("convolution", self.convolution, get_args(ConvolutionForm))
        if self.conditioning == "none" and (self.lam is None or not 0 <= self.lam <= 1):
            raise InputError(
                f"--lam: expected a number in [0, 1] with --conditioning=none, got {self.lam}."
            )
        refuse_unread(self)

    @property
    def unread(self) -> dict[str, str]:
        """λ, where it is drawn in each step."""
        if self.conditioning == "none":
            return {}
        return {"lam": "read only with --conditioning=none; λ is sampled otherwise"}


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
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    encoders: Path | None = None
    """Encoders of nce and nce_mi: a finished stage 1 run (default runs/ae), or segmentation
    networks: a folder of them, or `segmentation` for those that come with jaxreg."""
    init_from: Path | None = None
    """Registration run whose parameters are the start (step 0, fresh optimiser)."""
    teacher: Path | None = None
    """bundled, or the folder of a segmentation model: its segmentations are the labels of training
    subjects who have none, or of all without --label-weight; they count by --teacher-weight."""
    second_pass_fraction: float = 0.0
    """Share of the pairs that the network sees as it already moves them, to add what they still
    need, as later passes ask it to (--passes of register)."""
    validation_pairs: int = 10
    """Neighbouring pairs of the val split that are scored at each validation, at most."""

    def __post_init__(self):
        """Refuse numbers out of range and settings that the others leave unread."""
        require_share("second-pass-fraction", self.second_pass_fraction)
        if self.validation_pairs < 1:
            raise InputError(
                f"--validation-pairs: expected at least 1, got {self.validation_pairs}."
            )
        refuse_unread(self)

    @property
    def unread(self) -> dict[str, str]:
        """Settings that nothing reads as the others stand, and why."""
        reasons: dict[str, str] = {}
        if not self.objective.spec.contrastive:
            reasons["encoders"] = (
                f"read only by {' and '.join(CONTRASTIVE_LOSSES)}, not by "
                f"--loss={self.objective.loss}"
            )
        if self.network.conditioning == "none":
            reasons["objective.endpoint_fraction"] = (
                "not read with --conditioning=none, which trains at one λ"
            )
        if not self.session.validate_every:
            reasons["validation_pairs"] = "not read with --validate-every=0"
        if self.teacher is None:
            reasons["objective.teacher_weight"] = "read only with --teacher"
        return reasons


@dataclass(frozen=True)
class SegmentationNetworkConfig:
    """The segmentation network's shape and how it is computed."""

    channels: str | None = None
    """Channels at 1/2, 1/4, 1/8 … of the resolution, such as 32,64,96; none are those of the
    resolution."""
    dtype: Dtype = "float32"
    """float32, or bfloat16 for the convolutions on devices that have it in hardware."""
    convolution: ConvolutionForm = "auto"
    """How convolutions are computed: auto (by the platform), plain, slices or patches."""

    def __post_init__(self):
        """Refuse unknown names and channels that are not numbers above 0."""
        if self.channels is not None:
            channel_numbers(self.channels)
        require_choice("dtype", self.dtype, get_args(Dtype))
        require_choice("convolution", self.convolution, get_args(ConvolutionForm))


@dataclass(frozen=True)
class SegmentationConfig:
    """The segmentation: brain and structures in images of any contrast, learnt from label maps."""

    data: str | None = None
    """DIR[,DIR...]: folders of labelled subjects, or folders of such folders."""
    resolution: Resolution = "fine"
    """fine (2 mm on the brain laid onto the template) or coarse (4 mm, whole head, any pose)."""
    real_fraction: float = 0.3
    """Share of the images that are real, of subjects who have any; the others are made."""
    init_from: Path | None = None
    """bundled, or the folder of a segmentation model: the network whose parameters are the start
    (step 0, fresh optimiser)."""
    voxels: Voxels = "all"
    """Where the loss looks: all, or one random corner of each 2×2×2, which saves work on a CPU."""
    validation_subjects: int = 10
    """Subjects of each cohort's val split that are scored at each validation, at most."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    session: SessionConfig = field(default_factory=SessionConfig)
    network: SegmentationNetworkConfig = field(default_factory=SegmentationNetworkConfig)

    def __post_init__(self):
        """Refuse unknown names and numbers out of range."""
        require_choice("resolution", self.resolution, get_args(Resolution))
        require_choice("voxels", self.voxels, get_args(Voxels))
        require_share("real-fraction", self.real_fraction)
        if self.validation_subjects < 1:
            raise InputError(
                f"--validation-subjects: expected at least 1, got {self.validation_subjects}."
            )
        refuse_unread(self)

    @property
    def unread(self) -> dict[str, str]:
        """How many subjects are scored, where none is."""
        if self.session.validate_every:
            return {}
        return {"validation_subjects": "not read with --validate-every=0"}

    @property
    def channels(self) -> tuple[int, ...]:
        """The network's channels, fine to coarse."""
        given = self.network.channels
        return SEGMENTATION_CHANNELS[self.resolution] if given is None else channel_numbers(given)


Preset = Literal["paper", "miccai"]
DEFAULT_STEPS = {"ae": 1000, "reg": 10_000, "seg": 15_000}
"""Steps of the experiment at 2 mm."""
EMBEDDED_STEPS = {"ae": 600, "reg": 1500}
"""Steps on the embedded cohort, such that each stage ends within 15 minutes on two cores."""


def registration_preset(name: str, loss: str) -> RegistrationConfig:
    """The default configuration of stage 2 under a preset, for a loss; flags override its values.

    `miccai` departs from `paper` by 1024 negatives (where the loss has any) and by symmetry
    (ContraReg, MICCAI 2022).
    """
    require_choice("preset", name, get_args(Preset))
    objective = ObjectiveConfig(loss=loss)
    if name == "miccai":
        objective = dataclasses.replace(objective, symmetric=True)
        if objective.spec.contrastive:
            objective = dataclasses.replace(objective, nce_locations=1025)
    return RegistrationConfig(objective=objective)
