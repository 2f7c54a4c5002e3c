"""Exponential, sigmoid and tanh in plain arithmetic, which vectorizes; of a float32 if not said.

numba keeps the loops that call these compiled in ``__pycache__`` and does not see a change here:
delete that folder after one.
"""

import numpy as np

from xbackprop.kernels.loops.compiling import loop

F = np.float32
# Adding and taking away 1.5 * 2^23 rounds a float32 to an integer, which is then in its low bits.
_ROUND = F(12582912.0)
_ROUND_BITS = np.int32(0x4B400000)
_DOUBLE_ROUND, _DOUBLE_ROUND_BITS = 6755399441055744.0, np.int64(0x4338000000000000)  # 1.5 * 2^52
_DOUBLE_LN2_HIGH, _DOUBLE_LN2_LOW = 0.693145751953125, 1.42860682030941723212e-6
_LOG2_E, _LN2_HIGH, _LN2_LOW = F(1.44269504), F(0.693359375), F(-2.12194440e-4)


@loop("contract")
def exp_of_negative(x):
    """Return ``exp(x)`` for ``x <= 0`` to 2 units in the last place; 0 below -87.

    ``x = n log 2 + r``; a polynomial of ``r``, times ``2^n`` put together from its bits
    (Cody and Waite, "Software manual for the elementary functions", 1980, chapter 6).
    """
    x = F(-87.5) if x < F(-87.5) else x  # a NaN stays one
    shifted = x * _LOG2_E + _ROUND
    n = shifted - _ROUND
    r = x - n * _LN2_HIGH
    r = r - n * _LN2_LOW
    p = F(1.9875691500e-4)
    p = p * r + F(1.3981999507e-3)
    p = p * r + F(8.3334519073e-3)
    p = p * r + F(4.1665795894e-2)
    p = p * r + F(1.6666665459e-1)
    p = p * r + F(5.0000001201e-1)
    p = p * r * r + r + F(1.0)
    bits = np.int32(np.float32(shifted).view(np.int32) - _ROUND_BITS + np.int32(127))
    power = np.int32(bits << np.int32(23)).view(F)
    return p * power if x > F(-87.33) else p * F(0.0)


@loop("contract")
def double_exp_of_negative(x):
    """Return ``exp(x)`` of a float64 ``x <= 0`` to 2 units in the last place; 0 below -709.

    There ``2^n`` is put together as 0. As :func:`exp_of_negative`, with Taylor's polynomial:
    ``|r| < log(2) / 2``, so that the first term left out is below 1e-17.
    """
    x = -709.0 if x < -709.0 else x  # a NaN stays one
    shifted = x * 1.4426950408889634 + _DOUBLE_ROUND
    n = shifted - _DOUBLE_ROUND
    r = x - n * _DOUBLE_LN2_HIGH
    r = r - n * _DOUBLE_LN2_LOW
    p = 1.0 / 6227020800.0
    p = p * r + 1.0 / 479001600.0
    p = p * r + 1.0 / 39916800.0
    p = p * r + 1.0 / 3628800.0
    p = p * r + 1.0 / 362880.0
    p = p * r + 1.0 / 40320.0
    p = p * r + 1.0 / 5040.0
    p = p * r + 1.0 / 720.0
    p = p * r + 1.0 / 120.0
    p = p * r + 1.0 / 24.0
    p = p * r + 1.0 / 6.0
    p = p * r + 0.5
    p = p * r * r + r + 1.0
    bits = np.int64(np.float64(shifted).view(np.int64) - _DOUBLE_ROUND_BITS + np.int64(1023))
    power = np.int64(bits << np.int64(52)).view(np.float64)
    return p * power


@loop("contract")
def normal_distribution(x, exponential):
    """Return ``Phi(x)`` to 4 units in the last place, given ``exp(-x^2 / 2)``.

    Of ``|x|`` it is that exponential times a function which varies slowly, here a polynomial of
    ``1 / (1 + |x| / sqrt(8))``, fitted to the least largest relative error up to ``|x| = 14``.
    """
    t = F(1.0) / (F(1.0) + abs(x) * F(0.35355339))
    p = F(-2.75256669e-2)
    p = p * t + F(1.31951649e-1)
    p = p * t + F(-2.20739045e-1)
    p = p * t + F(1.10595753e-1)
    p = p * t + F(8.53863662e-3)
    p = p * t + F(9.06250306e-2)
    p = p * t + F(1.24896725e-1)
    p = p * t + F(1.40549219e-1)
    p = p * t + F(1.41110688e-1)
    p = p * t + F(-3.00563803e-6)
    tail = p * exponential
    return tail if x < F(0.0) else F(1.0) - tail


@loop("contract")
def sigmoid(x):
    """Return ``1 / (1 + exp(-x))``."""
    z = exp_of_negative(-abs(x))
    share = F(1.0) / (F(1.0) + z)
    return z * share if x < F(0.0) else share


@loop("contract")
def tanh(x):
    """Return ``tanh(x)``: a polynomial near 0, where ``1 - 2 / (e^2x + 1)`` would lose digits."""
    size = abs(x)
    z = exp_of_negative(F(-2.0) * size)
    far = (F(1.0) - z) / (F(1.0) + z)
    square = x * x
    p = F(-5.70498872745e-3)
    p = p * square + F(2.06390887954e-2)
    p = p * square + F(-5.37397155531e-2)
    p = p * square + F(1.33314422036e-1)
    p = p * square + F(-3.33332819422e-1)
    near = p * square * x + x
    signed = -far if x < F(0.0) else far
    return near if size < F(0.625) else signed
