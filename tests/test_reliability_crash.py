"""A short form of `nox -s reliability -- crash`."""

import os
import random
import signal

import pytest
from reliability.crash import interrupt, kill_inside_a_save, kill_somewhere

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals and pipes of POSIX")


def first_hit(attempt):
    results = (attempt(random.Random(seed)) for seed in range(50))
    return next(result for result in results if result is not None)


@pytest.mark.parametrize("kill", [kill_somewhere, kill_inside_a_save])
def test_a_killed_run_goes_on_bit_by_bit(kill):
    assert first_hit(kill)["problem"] == ""


@pytest.mark.parametrize("twice", [False, True])
def test_an_interrupted_run_goes_on_bit_by_bit(twice):
    hit = first_hit(lambda rng: interrupt(rng, signal.SIGINT, twice=twice))
    assert hit["problem"] == ""
