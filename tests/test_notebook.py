"""What a notebook shows of modules and parameters."""

import numpy as np
import pytest
from page_reader import PageReader

import xbackprop as xb
from xbackprop import nn
from xbackprop.module import Parameter


def table(html):
    page = PageReader(html)
    rows = [[cell.text for cell in row.inside] for row in page.tags("tr")]
    return page, rows[0], rows[1:]


def test_a_module_is_a_table_of_its_layers(xb_device):
    model = nn.Sequential({"hidden": nn.Linear(3, 4), "act": nn.Tanh(), "out": nn.Linear(4, 2)})
    model.to(xb_device)
    for parameter in list(model.parameters())[:2]:
        parameter.requires_grad = False
    with xb.transfer_log() as log:
        page, head, rows = table(model._repr_html_())
    assert (log.uploads, log.downloads, log.synchronizations, log.launches) == (0, 0, 0, 0)
    assert head[1:] == ["layer", "parameters", "count", "dtype", "device"]
    device = str(model.device)
    hidden, act, out = (repr(child) for child in model.children())
    assert rows == [
        ["", "Sequential", "", "", "", ""],
        ["hidden", hidden, "weight (4, 3) frozen, bias (4,) frozen", "16", "float32", device],
        ["act", act, "", "", "", ""],
        ["out", out, "weight (2, 4), bias (2,)", "10", "float32", device],
    ]
    (summary,) = page.tags("summary")
    assert summary.text == "Sequential: 26 parameters, 16 of them frozen"
    assert page.tags("details")[0].attributes == {"open": None}


def test_shared_and_lazy_parameters():
    first = nn.Linear(2, 2, rng=0)
    second = nn.Linear(2, 2, rng=0)
    second.weight = first.weight
    model = nn.Sequential(first, second, nn.LazyLinear(3))
    page, _, rows = table(model._repr_html_())
    assert [row[2] for row in rows] == [
        "", "weight (2, 2), bias (2,)", "bias (2,), weight (shared)", "weight (3, ?), bias (3)",
    ]  # fmt: skip
    assert page.tags("summary")[0].text == "Sequential: 8 parameters"


def test_names_are_escaped():
    model = nn.Sequential({"<b>&": nn.Tanh()})
    page, _, rows = table(model._repr_html_())
    assert rows[1][0] == "<b>&"
    assert not page.tags("b")


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_a_parameter_shows_its_norms_in_one_download(xb_device, dtype):
    values = np.random.default_rng(0).normal(size=(3, 4)).astype(dtype)
    parameter = Parameter(xb.to_device(values, xb_device))
    parameter.accumulate(xb.to_device(2 * values, xb_device))
    with xb.transfer_log() as log:
        _, head, (row,) = table(parameter._repr_html_())
    is_host = str(parameter.device) == "cpu"
    assert (log.uploads, log.downloads) == (0, 0 if is_host else 1)
    assert head == ["shape", "dtype", "device", "norm", "smallest", "largest", "norm of grad"]
    assert row[:3] == ["(3, 4)", dtype, str(parameter.device)]
    wide = values.astype(np.float64)
    norm = np.sqrt(np.sum(wide * wide))
    expected = [norm, wide.min(), wide.max(), 2 * norm]
    np.testing.assert_allclose(
        list(map(float, row[3:])), expected, rtol=2e-3 if dtype == "float16" else 1e-5
    )


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e200, 1e-200, 0.0])
def test_a_parameter_of_extreme_values(value):
    parameter = Parameter(np.full((2,), value))
    _, head, (row,) = table(parameter._repr_html_())
    assert head[-1] == "largest"  # there is no gradient
    assert float(row[-1]) == pytest.approx(value, nan_ok=True, rel=1e-5)
    assert float(row[3]) == pytest.approx(2**0.5 * value, nan_ok=True, rel=1e-5, abs=0.0)


def test_a_parameter_without_elements(xb_device):
    parameter = Parameter(
        xb.to_device(np.zeros((0, 3), np.float32), xb_device), requires_grad=False
    )
    _, head, (row,) = table(parameter._repr_html_())
    assert head == ["shape", "dtype", "device"]
    assert row == ["(0, 3)", "float32", f"{parameter.device}, frozen"]
