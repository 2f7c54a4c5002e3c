"""The suite runs on the devices of its own pytest plugin, and on a second stand-in GPU."""

import pytest

pytest_plugins = ["pytester"]


def pytest_addoption(pluginmanager: pytest.PytestPluginManager) -> None:
    # An installed package has been loaded by its entry point, whose name this is.
    if not pluginmanager.hasplugin("xbackprop"):
        pluginmanager.import_plugin("xbackprop.pytest_plugin")


def pytest_configure(config: pytest.Config) -> None:
    # What is created on the wrong device shows only where there are two.
    config.addinivalue_line("xb_devices", "fake:1")
