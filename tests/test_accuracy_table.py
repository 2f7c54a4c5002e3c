"""README's figures of accuracy are those that were measured."""

import pytest
from accuracy.table import RENDER, SECTIONS, read_results
from readme_section import read_section


@pytest.mark.parametrize("name", list(SECTIONS))
def test_readme_has_the_table_of_the_results(name):
    assert read_section(*SECTIONS[name]) == RENDER[name](read_results(name))
