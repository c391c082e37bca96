"""Options: one object or keywords, checked, the same everywhere."""

import dataclasses
import inspect
import math
import re

import numpy as np
import pytest
import torch

from espnet_gmot.transport import Options, fused_gromov_wasserstein
from espnet_gmot.transport.options import OptionKeywords
from tests.transport import fgw_cases


def test_keywords_are_the_fields_of_options() -> None:
    fields = {field.name: field.type for field in dataclasses.fields(Options)}
    declared = {name: reference.__forward_arg__ for name, reference in OptionKeywords.__annotations__.items()}
    assert declared == fields


def test_every_option_is_documented() -> None:
    attributes = inspect.getdoc(Options).split("Attributes:")[1].split("Raises:")[0]
    documented = re.findall(r"^    (\w+):", attributes, re.MULTILINE)
    assert documented == [field.name for field in dataclasses.fields(Options)]


@pytest.mark.parametrize("backend", ["torch", "pot"])
def test_options_and_keywords_are_two_spellings_of_one_call(backend: str) -> None:
    problem = fgw_cases.speech_like(2, (8, 12), (2, 4)).dense()
    keywords = {"alpha": 0.2, "rho_acoustic": 0.5, "outer_iterations": 5, "tolerance": 0.0, "backend": backend}
    one = fused_gromov_wasserstein(*problem, **keywords)
    two = fused_gromov_wasserstein(*problem, options=Options(**keywords))
    for field in dataclasses.fields(one):
        torch.testing.assert_close(getattr(one, field.name), getattr(two, field.name), equal_nan=True, rtol=0, atol=0)


def test_a_mix_or_an_unknown_keyword_is_refused() -> None:
    problem = fgw_cases.speech_like(2, (8, 12), (2, 4)).dense()
    with pytest.raises(TypeError, match="both options and alpha: give one Options, or keywords alone"):
        fused_gromov_wasserstein(*problem, options=Options(), alpha=0.2)
    with pytest.raises(TypeError, match="unexpected keyword argument 'alhpa'"):
        fused_gromov_wasserstein(*problem, alhpa=0.2)


def test_numbers_of_other_libraries_become_pythons_own() -> None:
    options = Options(alpha=torch.tensor(0.25), outer_iterations=np.int64(7), rho_acoustic=1, inner_iterations=3.0)
    assert (options.alpha, options.outer_iterations, options.rho_acoustic, options.inner_iterations) == (
        0.25,
        7,
        1.0,
        3,
    )
    assert [type(value) for value in (options.alpha, options.outer_iterations, options.rho_acoustic)] == [
        float,
        int,
        float,
    ]


@pytest.mark.parametrize(
    ("name", "good", "bad", "expected"),
    [
        ("alpha", (0, 1), (-1e-6, 1 + 1e-6, math.nan, "0.5"), "expected a number"),
        ("epsilon", (1e-9, 1e9), (0, -1, math.inf, None), "expected a"),
        ("epsilon_relative", (True, False), (1, None), "expected True or False"),
        ("rho_acoustic", (0, math.inf), (-1e-9, math.nan), "expected a number"),
        ("rho_linguistic", (0, math.inf), (-1e-9,), "expected a number from 0 to inf"),
        ("outer_iterations", (1, 10**6), (0, 1.5, math.inf), "expected"),
        ("inner_iterations", (1,), (0, -3), "expected at least 1"),
        ("tolerance", (0, 1e9), (-1e-9,), "expected a number of at least 0"),
        ("method", ("proximal", "mirror"), ("sinkhorn", None), "expected"),
        ("annealing", (1, 30), (0.99, math.inf), "expected a factor of at least 1"),
        ("plan_gradient", ("detached",), ("explicit",), "expected 'detached' or 'implicit'"),
        ("backend", ("auto", "torch", "numba", "pot"), ("cuda",), "expected 'auto', 'torch', 'numba' or 'pot'"),
    ],
)
def test_ranges_are_closed_where_they_say_so(name: str, good: tuple, bad: tuple, expected: str) -> None:
    for value in good:
        assert getattr(Options(**{name: value}), name) == value
    for value in bad:
        with pytest.raises(ValueError, match=f"^{name} is .*; {re.escape(expected)}"):
            Options(**{name: value})


def test_every_option_has_its_range_tested() -> None:
    (mark,) = test_ranges_are_closed_where_they_say_so.pytestmark
    assert [case[0] for case in mark.args[1]] == [field.name for field in dataclasses.fields(Options)]


def test_an_implicit_gradient_needs_an_entropic_plan() -> None:
    assert Options(plan_gradient="implicit", method="mirror").plan_gradient == "implicit"
    for other in ({}, {"method": "mirror", "backend": "pot"}):
        with pytest.raises(ValueError, match="plan_gradient is 'implicit' with method"):
            Options(plan_gradient="implicit", **other)


def test_annealing_is_gone_by_half_of_the_steps() -> None:
    options = Options(annealing=16.0, outer_iterations=8)
    assert [options.temperature(step) for step in range(7)] == pytest.approx([16, 8, 4, 2, 1, 1, 1])
    assert Options().temperature(0) == 1.0 == Options(annealing=4.0, outer_iterations=1).temperature(1)


def test_balanced_means_both_marginals() -> None:
    assert Options().balanced
    assert not Options(rho_acoustic=1.0).balanced and not Options(rho_linguistic=0.0).balanced
