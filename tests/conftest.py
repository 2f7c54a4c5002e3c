"""The suite runs on the devices of its own pytest plugin, and on a second stand-in GPU.

Runs with `-m torch_parity` end with a table of what was compared with PyTorch.
"""

import pytest

pytest_plugins = ["pytester"]


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    parser.addoption(
        "--parity-counts", metavar="FILE", help="with -m torch_parity: write what was counted there"
    )
    # An installed package has been loaded by its entry point, whose name this is.
    if not pluginmanager.hasplugin("xbackprop"):
        pluginmanager.import_plugin("xbackprop.pytest_plugin")


def pytest_configure(config: pytest.Config) -> None:
    # What is created on the wrong device shows only where there are two.
    config.addinivalue_line("xb_devices", "fake:1")
    if config.option.markexpr == "torch_parity":
        from parity.counts import ParityCounts

        config.pluginmanager.register(ParityCounts(config.option.parity_counts))
