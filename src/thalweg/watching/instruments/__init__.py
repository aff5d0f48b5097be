"""The default instruments, one file each, in order of priority: the governor serves the first ones best."""

from thalweg.watching.contracts import Instrument
from thalweg.watching.instruments.applied_update import AppliedUpdate
from thalweg.watching.instruments.distance_from_start import DistanceFromStart
from thalweg.watching.instruments.effective_rate import EffectiveRate
from thalweg.watching.instruments.gradient_change import GradientChange
from thalweg.watching.instruments.gradient_norm import GradientNorm
from thalweg.watching.instruments.gradient_to_epsilon import GradientToEpsilon
from thalweg.watching.instruments.hyper_parameters import HyperParameters
from thalweg.watching.instruments.noise_scale import NoiseScale
from thalweg.watching.instruments.nonfinite_gradient import NonfiniteGradient
from thalweg.watching.instruments.output_logits import OutputLogits
from thalweg.watching.instruments.peak_memory import PeakMemory
from thalweg.watching.instruments.sign_agreement import SignAgreement
from thalweg.watching.instruments.unit_activity import UnitActivity
from thalweg.watching.instruments.zero_gradient import ZeroGradient

DEFAULT: tuple[type[Instrument], ...] = (
    GradientNorm,
    NonfiniteGradient,
    AppliedUpdate,
    HyperParameters,
    OutputLogits,
    NoiseScale,
    UnitActivity,
    DistanceFromStart,
    GradientChange,
    SignAgreement,
    GradientToEpsilon,
    EffectiveRate,
    ZeroGradient,
    PeakMemory,
)
