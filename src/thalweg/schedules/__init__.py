"""Schedules: pure functions of the step, for the rate or anything else, and `bind`, which writes them into an optimizer."""

from typing import TYPE_CHECKING

from thalweg.core.lazy import attach

if TYPE_CHECKING:
    from thalweg.schedules.batch_ramp import BatchRamp as BatchRamp
    from thalweg.schedules.binding import Bound as Bound
    from thalweg.schedules.constant import Constant as Constant
    from thalweg.schedules.cosine import Cosine as Cosine
    from thalweg.schedules.cosine_restarts import CosineRestarts as CosineRestarts
    from thalweg.schedules.cyclical import Cyclical as Cyclical
    from thalweg.schedules.drawing import figure as figure
    from thalweg.schedules.drawing import picture as picture
    from thalweg.schedules.drift_aware import DriftAware as DriftAware
    from thalweg.schedules.exponential import Exponential as Exponential
    from thalweg.schedules.expressions import parse as parse
    from thalweg.schedules.infinite import Infinite as Infinite
    from thalweg.schedules.inverse_sqrt import InverseSqrt as InverseSqrt
    from thalweg.schedules.joining import chain as chain
    from thalweg.schedules.joining import from_callable as from_callable
    from thalweg.schedules.joining import from_table as from_table
    from thalweg.schedules.linear import Linear as Linear
    from thalweg.schedules.one_cycle import OneCycle as OneCycle
    from thalweg.schedules.polynomial import Polynomial as Polynomial
    from thalweg.schedules.power import Power as Power
    from thalweg.schedules.quadratic_sync import QuadraticSync as QuadraticSync
    from thalweg.schedules.radam_warm_up import RAdamWarmUp as RAdamWarmUp
    from thalweg.schedules.refined import Refined as Refined
    from thalweg.schedules.rewarm_redecay import RewarmRedecay as RewarmRedecay
    from thalweg.schedules.rex import REX as REX
    from thalweg.schedules.sampled import Sampled as Sampled
    from thalweg.schedules.sampling_temperature import SamplingTemperature as SamplingTemperature
    from thalweg.schedules.shape import Schedule as Schedule
    from thalweg.schedules.slow_start_fast_decay import SlowStartFastDecay as SlowStartFastDecay
    from thalweg.schedules.steps import Steps as Steps
    from thalweg.schedules.two_phase import TwoPhase as TwoPhase
    from thalweg.schedules.warm_up import WarmUp as WarmUp
    from thalweg.schedules.wsd import WSD as WSD
    from thalweg.schedules.wsd_s import WSDS as WSDS
else:
    __getattr__, __dir__, __all__ = attach(
        __name__,
        {
            "BatchRamp": "thalweg.schedules.batch_ramp",
            "Bound": "thalweg.schedules.binding",
            "Constant": "thalweg.schedules.constant",
            "Cosine": "thalweg.schedules.cosine",
            "CosineRestarts": "thalweg.schedules.cosine_restarts",
            "Cyclical": "thalweg.schedules.cyclical",
            "DriftAware": "thalweg.schedules.drift_aware",
            "Exponential": "thalweg.schedules.exponential",
            "Infinite": "thalweg.schedules.infinite",
            "InverseSqrt": "thalweg.schedules.inverse_sqrt",
            "Linear": "thalweg.schedules.linear",
            "OneCycle": "thalweg.schedules.one_cycle",
            "Polynomial": "thalweg.schedules.polynomial",
            "Power": "thalweg.schedules.power",
            "QuadraticSync": "thalweg.schedules.quadratic_sync",
            "RAdamWarmUp": "thalweg.schedules.radam_warm_up",
            "REX": "thalweg.schedules.rex",
            "Refined": "thalweg.schedules.refined",
            "RewarmRedecay": "thalweg.schedules.rewarm_redecay",
            "Sampled": "thalweg.schedules.sampled",
            "SamplingTemperature": "thalweg.schedules.sampling_temperature",
            "Schedule": "thalweg.schedules.shape",
            "SlowStartFastDecay": "thalweg.schedules.slow_start_fast_decay",
            "Steps": "thalweg.schedules.steps",
            "TwoPhase": "thalweg.schedules.two_phase",
            "WSD": "thalweg.schedules.wsd",
            "WSDS": "thalweg.schedules.wsd_s",
            "WarmUp": "thalweg.schedules.warm_up",
            "chain": "thalweg.schedules.joining",
            "figure": "thalweg.schedules.drawing",
            "from_callable": "thalweg.schedules.joining",
            "from_table": "thalweg.schedules.joining",
            "parse": "thalweg.schedules.expressions",
            "picture": "thalweg.schedules.drawing",
        },
    )
