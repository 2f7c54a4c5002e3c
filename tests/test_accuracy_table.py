"""README's figures of accuracy are those that were measured."""

from accuracy.table import SECTION, read_results, render
from readme_section import read_section


def test_readme_has_the_table_of_the_results():
    assert read_section(*SECTION) == render(read_results())
