"""Looking inside: observers of ops, such as the one that explains backpropagation."""

import sys
import types
from contextlib import AbstractContextManager

from xbackprop import dispatch
from xbackprop.observe.anomaly import AnomalyError, detect_anomaly
from xbackprop.observe.explanation import Explanation
from xbackprop.observe.layers.findings import Survey
from xbackprop.observe.layers.survey import survey
from xbackprop.observe.lesson import explain
from xbackprop.observe.parity import OpParity, Parity, parity
from xbackprop.observe.parity_file import record_parity, replay_parity
from xbackprop.observe.profiling.profile import Profile
from xbackprop.observe.profiling.recording import profile
from xbackprop.observe.statistics import StatisticsRecorder

__all__ = [
    "AnomalyError",
    "Explanation",
    "OpParity",
    "Parity",
    "Profile",
    "StatisticsRecorder",
    "Survey",
    "detect_anomaly",
    "explain",
    "parity",
    "profile",
    "record_parity",
    "replay_parity",
    "survey",
]


class _CallableModule(types.ModuleType):
    """``xb.observe(observer)`` is the context of dispatch, ``xb.observe.explain`` stands here."""

    def __call__(self, *observers: dispatch.Observer) -> AbstractContextManager[None]:
        return dispatch.observe(*observers)


sys.modules[__name__].__class__ = _CallableModule
