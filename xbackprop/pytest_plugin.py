"""pytest plugin: a test runs on every device, within a budget of transfers.

Installing xbackprop is enough to have it (``-p no:xbackprop`` leaves it out)::

    @pytest.mark.xb_budget(uploads=1, downloads=0)
    def test_normalize(xb_device):
        normalize(xb.asarray([3.0, 4.0]))

This test runs as ``test_normalize[cpu]``, ``[fake]`` and ``[cuda]``. The stand-in GPU ``fake``
fails it at the line where a real GPU would need a second upload, or would bring a value back.

* ``xb_device``: fixture; the device, which is the default device meanwhile. A device that cannot be
  had is a skip with its reason. ``@pytest.mark.parametrize("xb_device", ["fake:1"],
  indirect=True)`` chooses for one test.
* ``--xb-devices cpu,fake,fake:1,cuda``, or the ini option ``xb_devices``: chooses for all tests.
* ``XBACKPROP_TEST_REQUIRE=cuda``, in the environment: what is listed must run; where it cannot, the
  skip is a failure, and where it is not chosen, pytest does not start. ``torch`` may be listed too:
  it concerns tests of parity with PyTorch, and not this plugin.
* ``xb_budget(uploads=, downloads=, synchronizations=)``: marker; how much may cross in the test
  itself, its fixtures apart. Marks of a class and of its test are taken together.
* ``xb_transfers``: fixture; what has crossed in the test so far, as a
  :class:`~xbackprop.backend.transfer.TransferLog`.

Under pytest-xdist (``-n 2``) all of it holds in each process: each asks once whether a GPU can be
used, and they share it.

An error that the device shim raises on purpose is reported at the line that caused it;
``--full-trace`` shows the shim's own lines too. Device, budget and log are those of the test's
thread: a thread that the test starts sees none of them, unless it runs in a copy of the context.
"""

import contextlib
import dis
import os
import types
from collections.abc import Generator, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

# pytest loads this file for every project of an environment: what costs is imported when needed.
if TYPE_CHECKING:
    from xbackprop.backend.device import Device
    from xbackprop.backend.transfer import TransferLog

DEFAULT_DEVICES = ("cpu", "fake", "cuda")
REQUIRE = "XBACKPROP_TEST_REQUIRE"

_REQUIRED_ELSEWHERE = ("torch",)
_BUDGET = ("uploads", "downloads", "synchronizations")
_SHIM = os.path.join(os.path.dirname(os.path.abspath(__file__)), "backend") + os.sep
_RAISE = dis.opmap["RAISE_VARARGS"]

_log_of_test = pytest.StashKey["TransferLog"]()
_reason_for_skip = pytest.StashKey[str]()


# Which devices


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the option and its counterpart in the ini file."""
    parser.getgroup("xbackprop").addoption(
        "--xb-devices",
        metavar="NAMES",
        help="devices on which tests with the fixture xb_device run, as in cpu,fake,fake:1,cuda "
        f"(default: {','.join(DEFAULT_DEVICES)})",
    )
    # Of type "args", so that a TOML file may give a list and an ini file a line.
    help_text = "devices on which tests with the fixture xb_device run"
    parser.addini("xb_devices", help_text, type="args", default=list(DEFAULT_DEVICES))


@pytest.hookimpl(trylast=True)  # a conftest may add to the ini option before
def pytest_configure(config: pytest.Config) -> None:
    """Read what is asked for and make the fixture."""
    config.addinivalue_line(
        "markers",
        "xb_budget(uploads=N, downloads=N, synchronizations=N): the test fails at the first "
        "transfer between host and device beyond these counts.",
    )
    names = _chosen_devices(config)
    plugin = _device_fixture(names, _required_devices(names))
    config.pluginmanager.register(plugin, "xbackprop_devices")


def _chosen_devices(config: pytest.Config) -> tuple[str, ...]:
    option = config.getoption("xb_devices")
    source = "ini option xb_devices" if option is None else "--xb-devices"
    names = _split(config.getini("xb_devices") if option is None else [option])
    if not names:
        raise pytest.UsageError(f"{source} is empty; expected {_grammar()}")
    if names == DEFAULT_DEVICES:
        return names
    chosen: dict[Device, str] = {}
    for name in names:  # fake and fake:0 are one device
        device = _parse(name)
        if device is None:
            raise pytest.UsageError(_unknown(name, source))
        chosen.setdefault(device, name)
    return tuple(chosen.values())


def _required_devices(chosen: tuple[str, ...]) -> tuple[str, ...]:
    """Read XBACKPROP_TEST_REQUIRE, and refuse what no test would be run on."""
    names = _split([os.environ.get(REQUIRE, "")])
    required = tuple(name for name in names if name not in _REQUIRED_ELSEWHERE)
    for name in required:
        if _parse(name) is None:
            raise pytest.UsageError(_unknown(name, REQUIRE, *_REQUIRED_ELSEWHERE))
        if not any(_is_required(device, (name,)) for device in chosen):
            raise pytest.UsageError(
                f"{REQUIRE} names {name}, but the tests run on {', '.join(chosen)} only; "
                f"add {name} to --xb-devices or to the ini option xb_devices"
            )
    return required


def _is_required(name: str, required: Iterable[str]) -> bool:
    """Tell whether ``required`` holds the device or, as in ``cuda``, its whole kind."""
    return name in required or name.partition(":")[0] in required


def _split(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(name for text in texts for name in text.lower().replace(",", " ").split())


def _parse(name: Any) -> "Device | None":
    """Read a device's name; None for any other, and for ``auto``, which may be any device."""
    from xbackprop.backend.device import DeviceError, parse_device

    try:
        return parse_device(name)
    except DeviceError:
        return None


def _unknown(name: object, source: str, *also_valid: str) -> str:
    valid = ", ".join((_grammar(), *also_valid))
    return f"{source}: no device is named {name!r}; expected {valid}"


def _grammar() -> str:
    from xbackprop.backend.device import FAKE_DEVICE_COUNT

    return f"cpu, cuda, cuda:N, fake, fake:0 to fake:{FAKE_DEVICE_COUNT - 1}"


# The fixtures


def _device_fixture(names: tuple[str, ...], required: tuple[str, ...]) -> object:
    """Make the plugin that holds ``xb_device``, whose parameters pytest wants beforehand."""
    reasons: dict[str, str | None] = {}  # one answer for the session, though a GPU may get busy

    class Devices:
        @pytest.fixture(params=names)
        def xb_device(self, request: pytest.FixtureRequest) -> "Iterator[Device]":
            """Run the test on every device of --xb-devices; the value is the Device.

            It is the default device during the test. ``xb_device.xp`` is its array module,
            ``str(xb_device)`` its name.
            """
            from xbackprop.backend.device import use_device

            name = _name_of_parameter(request.param)
            if name not in reasons:
                reasons[name] = _why_unavailable(name)
            reason = reasons[name]
            if reason is not None and _is_required(name, required):
                pytest.fail(f"{REQUIRE}={','.join(required)}: {reason}", pytrace=False)
            if reason is not None:
                request.node.stash[_reason_for_skip] = reason
                pytest.skip(reason)
            with use_device(name) as device:
                yield device

    return Devices()


def _name_of_parameter(value: Any) -> str:
    """Return the name of a device that ``parametrize`` gave."""
    if _parse(value) is None:  # one test's mistake, and no reason to stop the others
        pytest.fail(_unknown(value, 'parametrize("xb_device", ...)'), pytrace=False)
    return value.strip().lower() if isinstance(value, str) else str(value)


def _why_unavailable(name: str) -> str | None:
    """Return the reason why a device cannot be had; CuPy is imported for ``cuda`` alone."""
    from xbackprop.backend.device import DeviceUnavailableError, resolve_device

    try:
        resolve_device(name, asked_by="xb_device")
    except DeviceUnavailableError as error:
        return str(error)
    return None


@pytest.fixture
def xb_transfers(request: pytest.FixtureRequest) -> "TransferLog":
    """Count what crosses between host and device in the test itself."""
    from xbackprop.backend.transfer import TransferLog

    log = TransferLog()
    request.node.stash[_log_of_test] = log
    return log


# The budget


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Refuse misused marks when the tests are collected."""
    _budget_of(metafunc.definition)
    for mark in metafunc.definition.iter_markers("parametrize"):
        _refuse_direct_parametrization(metafunc.definition, *mark.args, **mark.kwargs)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Refuse misused marks that came later, as those of single parameters do."""
    _budget_of(item)


def _budget_of(node: pytest.Item) -> dict[str, int]:
    """Return the limits that a test's xb_budget marks set; the closest mark has the last word."""
    limits: dict[str, int] = {}
    for mark in reversed(list(node.iter_markers("xb_budget"))):
        counts = mark.kwargs.values()
        are_counts = all(type(count) is int and count >= 0 for count in counts)
        if mark.args or not counts or not are_counts or not mark.kwargs.keys() <= set(_BUDGET):
            given = [repr(value) for value in mark.args]
            given += [f"{key}={value!r}" for key, value in mark.kwargs.items()]
            pytest.fail(
                f"{node.nodeid}: xb_budget expects one or more of {'=, '.join(_BUDGET)}=, each a "
                f"count from 0 up; got xb_budget({', '.join(given)})",
                pytrace=False,
            )
        limits |= mark.kwargs
    return limits


def _refuse_direct_parametrization(
    node: pytest.Item,
    argnames: str | Iterable[str],
    argvalues: object = None,
    indirect: bool | Iterable[str] = False,
    **options: object,
) -> None:
    """Refuse a parametrisation that would replace the fixture: the device would not be used."""
    names = argnames.replace(",", " ").split() if isinstance(argnames, str) else tuple(argnames)
    indirect_names = names if indirect is True else tuple(indirect or ())
    if "xb_device" in names and "xb_device" not in indirect_names:
        pytest.fail(
            f'{node.nodeid}: parametrize("xb_device", ...) expects indirect=True; without it the '
            "test would get the bare name and run on the default device",
            pytrace=False,
        )


@pytest.hookimpl(wrapper=True, trylast=True)  # innermost: other plugins stay out of the count
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Run the test itself, fixtures apart, within its budget and under its log."""
    limits = _budget_of(item)
    log = item.stash.get(_log_of_test, None)
    if not limits and log is None:
        return (yield)
    from xbackprop.backend.transfer import open_log, transfer_guard

    with contextlib.ExitStack() as stack:
        if log is not None:  # first, so that it holds the transfer that exceeds the budget too
            stack.enter_context(open_log(log))
        guarded = stack.enter_context(transfer_guard(**limits)) if limits else None
        result = yield
    if guarded is not None:
        _refuse_caught_errors(guarded, limits)
    return result


def _refuse_caught_errors(log: "TransferLog", limits: dict[str, int]) -> None:
    """Fail a test that went beyond its budget and survived, by an ``except`` too wide."""
    from xbackprop.backend.transfer import describe_excess

    for name, limit in limits.items():
        events = [event for event in log.events if f"{event.kind}s" == name]
        if len(events) > limit:
            pytest.fail(
                f"{describe_excess(events[limit], limit)}. The error raised there was caught",
                pytrace=False,
            )


# The report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, Any]:
    """Let all skips for one reason be one line of the summary."""
    report = yield
    reason = item.stash.get(_reason_for_skip, None)
    if report.skipped and reason is not None:
        # pytest names each test's own line here, and folds only what comes from one line.
        report.longrepr = (__file__, _why_unavailable.__code__.co_firstlineno, reason)
    return report


# Not a wrapper, for these come before pytest has fetched the exception out of a unittest.TestCase.
@pytest.hookimpl(specname="pytest_runtest_makereport")
def pytest_end_at_caller(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """Let the report of a refusal end at the line refused."""
    if call.excinfo is None or item.config.getoption("fulltrace", False):
        return
    caller, frames = _refused_by_shim(call.excinfo.tb)
    if caller is not None:
        # pytest may hold entries already, and makes new ones from the raw traceback.
        call.excinfo.traceback = call.excinfo.traceback[:-frames]
        caller.tb_next = None


def _refused_by_shim(
    traceback: types.TracebackType,
) -> tuple[types.TracebackType | None, int]:
    """Find who called the shim when it raised on purpose, and count the shim's frames after it."""
    caller, frames, deepest = None, 0, traceback
    while True:
        if deepest.tb_frame.f_code.co_filename.startswith(_SHIM):
            frames += 1
        else:
            caller, frames = deepest, 0
        if deepest.tb_next is None:
            break
        deepest = deepest.tb_next
    # A defect of the shim, or NumPy's complaint about shapes, does not end at a `raise`.
    is_raise = deepest.tb_frame.f_code.co_code[deepest.tb_lasti] == _RAISE
    return (caller, frames) if frames and is_raise else (None, 0)
