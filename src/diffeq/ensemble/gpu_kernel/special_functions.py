"""Functions that Triton's lowering lacks, out of those that it has: erf, erfc, lgamma, digamma.

erf and erfc are Cephes' (Moshier, `ndtr.c` and `ndtrf.c`): below one a polynomial or a quotient of
two, above it the same times exp(−x²), whose square is taken exactly. lgamma and digamma are the sum
of nine terms of Lanczos with g = 7, as XLA has it; about its zeros, one and two, lgamma is a power
series (Abramowitz & Stegun, 6.1.33), which has all digits of what is small there.
"""

import math
from collections.abc import Callable, Sequence
from functools import wraps

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool

__all__ = ["digamma", "erf", "erfc", "lgamma"]

type Function = Callable[[Array], Array]


def _in_full(function: Function) -> Function:
    """A function for single and double precision; lower ones go through single."""

    @wraps(function)
    def wide(x: Array) -> Array:
        if x.dtype in (jnp.float32, jnp.float64):
            return function(x)
        return function(x.astype(jnp.float32)).astype(x.dtype)

    return wide


def _horner(x: Array, coefficients: Sequence[float | Array]) -> Array:
    """By Horner's scheme, the highest power first."""
    value = jnp.full_like(x, coefficients[0])
    for c in coefficients[1:]:
        value = value * x + c
    return value


# --- the error function ---------------------------------------------------------------------------

# Of x² for |x| < 1: erf(x) / x.
_SMALL = (7.853861353153693e-5, -8.010193625184903e-4, 5.188327685732524e-3,
          -2.685381193529856e-2, 1.128358514861418e-1, -3.761262582423300e-1,
          1.128379165726710)  # fmt: skip
_SMALL_ABOVE = (9.60497373987051638749, 9.00260197203842689217e1, 2.23200534594684319226e3,
                7.00332514112805075473e3, 5.55923013010394962768e4)  # fmt: skip
_SMALL_BELOW = (1.0, 3.35617141647503099647e1, 5.21357949780152679795e2, 4.59432382970980127987e3,
                2.26290000613890934246e4, 4.92673942608635921086e4)  # fmt: skip

# Single precision, of 1 / x², below and above 2: x exp(x²) erfc(x).
_NEAR = (2.326819970068386e-2, -1.387039388740657e-1, 3.687424674597105e-1, -5.824733027278666e-1,
         6.210004621745983e-1, -4.944515323274145e-1, 3.404879937665872e-1, -2.741127028184656e-1,
         5.638259427386472e-1)  # fmt: skip
_FAR = (0.0, -1.047766399936249e1, 1.297719955372516e1, -7.495518717768503, 2.921019019210786,
        -1.015265279202700, 4.218463358204948e-1, -2.820767439740514e-1,
        5.641895067754075e-1)  # fmt: skip

# Double precision, of x, below and above 8: exp(x²) erfc(x).
_NEAR_ABOVE = (2.46196981473530512524e-10, 5.64189564831068821977e-1, 7.46321056442269912687,
               4.86371970985681366614e1, 1.96520832956077098242e2, 5.26445194995477358631e2,
               9.34528527171957607540e2, 1.02755188689515710272e3,
               5.57535335369399327526e2)  # fmt: skip
_NEAR_BELOW = (1.0, 1.32281951154744992508e1, 8.67072140885989742329e1, 3.54937778887819891062e2,
               9.75708501743205489753e2, 1.82390916687909736289e3, 2.24633760818710981792e3,
               1.65666309194161350182e3, 5.57535340817727675546e2)  # fmt: skip
_FAR_ABOVE = (0.0, 0.0, 0.0, 5.64189583547755073984e-1, 1.27536670759978104416,
              5.01905042251180477414, 6.16021097993053585195, 7.40974269950448939160,
              2.97886665372100240670)  # fmt: skip
_FAR_BELOW = (0.0, 0.0, 1.0, 2.26052863220117276590, 9.39603524938001434673,
              1.20489539808096656605e1, 1.70814450747565897222e1, 9.60896809063285878198,
              3.36907645100081516050)  # fmt: skip


def _of_small(x: Array) -> Array:
    """erf(x) for |x| < 1."""
    square = x * x
    if x.dtype == jnp.float32:
        return x * _horner(square, _SMALL)
    return x * _horner(square, _SMALL_ABOVE) / _horner(square, _SMALL_BELOW)


def _of_large(x: Array) -> Array:
    """erfc(x) for x ≥ 1."""
    x = jnp.minimum(x, 30.0)  # from 27 on it is zero
    if x.dtype == jnp.float32:
        other = _select_coefficients(x < 2.0, _NEAR, _FAR)
        quotient = _horner(1.0 / (x * x), other) / x
    else:
        near = x < 8.0
        above = _horner(x, _select_coefficients(near, _NEAR_ABOVE, _FAR_ABOVE))
        quotient = above / _horner(x, _select_coefficients(near, _NEAR_BELOW, _FAR_BELOW))
    return _bell(x) * quotient


def _select_coefficients(
    which: Bool[Array, "..."], yes: Sequence[float], no: Sequence[float]
) -> list:
    return [jnp.where(which, a, b) for a, b in zip(yes, no, strict=True)]


def _bell(x: Array) -> Array:
    """exp(−x²). The square of the upper half of the digits is exact; the rest is small, and stands
    apart from it so that no compiler adds the two.
    """
    whole, mask = (jnp.int32, -(2**12)) if x.dtype == jnp.float32 else (jnp.int64, -(2**27))
    upper = lax.bitcast_convert_type(lax.bitcast_convert_type(x, whole) & mask, x.dtype)
    most = jnp.exp(-upper * upper)
    return most + most * jnp.expm1(-(x - upper) * (x + upper))


@_in_full
def erf(x: Array) -> Array:
    """2 / √π ∫₀ˣ exp(−s²) ds.

    >>> print((erf(jnp.array([0.25, -1.5])) * 1000).round())
    [ 276. -966.]
    """
    size = jnp.abs(x)
    large = 1.0 - _of_large(jnp.where(size > 1.0, size, 1.0))
    found = jnp.where(size > 1.0, jnp.where(x > 0.0, large, -large), _of_small(x))
    return jnp.where(jnp.isnan(x), x, found)


@_in_full
def erfc(x: Array) -> Array:
    """1 − erf(x), to nearly all digits where that is small.

    >>> print((erfc(jnp.array([0.5, 4.0])) * jnp.array([1e2, 1e10])).round(1))
    [ 48.  154.2]
    """
    size = jnp.abs(x)
    large = _of_large(jnp.where(size > 1.0, size, 1.0))
    small = 1.0 - _of_small(x)
    found = jnp.where(size > 1.0, jnp.where(x > 0.0, large, 2.0 - large), small)
    return jnp.where(jnp.isnan(x), x, found)


# --- the gamma function ---------------------------------------------------------------------------

_G = 7.0
_FIRST = 0.99999999999980993227684700473478
_LANCZOS = (676.520368121885098567009190444019, -1259.13921672240287047156078755283,
            771.3234287776530788486528258894, -176.61502916214059906584551354,
            12.507343278686904814458936853, -0.13857109526572011689554707,
            9.984369578019570859563e-6, 1.50563273514931155834e-7)  # fmt: skip

# (−1)ᵏ (ζ(k) − 1) / k for k = 26 … 2, and 1 − γ: lgamma(2 + u) / u.
_ABOUT_TWO = (5.731367241678862e-10, -1.1921401405860912e-9, 2.4836745438024783e-9,
              -5.1834750419700467e-9, 1.0838659214896954e-8, -2.2711094608943165e-8,
              4.7698101693639806e-8, -1.00432248239681e-7, 2.1207184805554666e-7,
              -4.492469198764566e-7, 9.5514121304074198e-7, -2.0392157538013662e-6,
              4.3748667899074878e-6, -9.4394882752683959e-6, 2.0507212775670692e-5,
              -4.4926236738133142e-5, 9.9457512781808534e-5, -2.2315475845357938e-4,
              5.0966952474304242e-4, -1.192753911703261e-3, 2.8905103307415233e-3,
              -7.3855510286739853e-3, 2.0580808427784548e-2, -6.7352301053198095e-2,
              3.2246703342411322e-1, 4.22784335098467139e-1)  # fmt: skip
_TERMS_OF_SINGLE = 12


def _shifted(x: Array) -> tuple[Array, Array, Array]:
    """The argument of the sums: x − 1, or −x below one half, where they are reflected; that plus
    g + 1/2, and its logarithm.
    """
    z = jnp.where(x < 0.5, -x, x - 1.0)
    return z, z + (_G + 0.5), math.log(_G + 0.5) + jnp.log1p(z / (_G + 0.5))


@_in_full
def lgamma(x: Array) -> Array:
    """The logarithm of |Γ(x)|.

    >>> print(lgamma(jnp.array([0.5, 4.0, -0.5])).round(3))
    [0.572 1.792 1.266]
    """
    z, t, log_t = _shifted(x)
    terms = _FIRST + sum(c / (z + (i + 1.0)) for i, c in enumerate(_LANCZOS))
    upper = (z + 0.5 - t / log_t) * log_t + math.log(2 * math.pi) / 2 + jnp.log(terms)
    size = jnp.abs(x)
    part = size - jnp.floor(size)
    part = jnp.where(part > 0.5, 1.0 - part, part)
    sine = jnp.log(jnp.sin(math.pi * part))
    lower = jnp.where(jnp.isfinite(sine), math.log(math.pi) - sine - upper, -sine)
    upper = jnp.where(x < 2.5, _about_zeros(x), upper)
    return jnp.where(jnp.isinf(x), jnp.inf, jnp.where(x < 0.5, lower, upper))


def _about_zeros(x: Array) -> Array:
    """lgamma(x) for 1/2 ≤ x ≤ 5/2: with u from the nearer of one and two, about one it is
    lgamma(2 + u) − log(1 + u).
    """
    one = x < 1.5
    u = jnp.where(one, x - 1.0, x - 2.0)
    terms = _ABOUT_TWO[-_TERMS_OF_SINGLE:] if x.dtype == jnp.float32 else _ABOUT_TWO
    return u * _horner(u, terms) - jnp.where(one, jnp.log1p(u), 0.0)


@_in_full
def digamma(x: Array) -> Array:
    """Γ'(x) / Γ(x), NaN at its poles below zero.

    >>> print(digamma(jnp.array([1.0, 0.25])).round(3))
    [-0.577 -4.227]
    """
    z, t, log_t = _shifted(x)
    quotients = [c / (z + (i + 1.0)) for i, c in enumerate(_LANCZOS)]
    slope = sum(q / (z + (i + 1.0)) for i, q in enumerate(quotients))
    upper = log_t - slope / (_FIRST + sum(quotients)) - _G / t
    turned = math.pi * (x + jnp.abs(jnp.floor(x + 0.5)))
    lower = upper - math.pi * jnp.cos(turned) / jnp.sin(turned)
    found = jnp.where(x < 0.5, lower, upper)
    return jnp.where((x < 0.0) & (x == jnp.floor(x)), jnp.nan, found)
