"""Importing and using the package leaves the state of the process as it was."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = r"""
import decimal, faulthandler, gc, io, locale, logging, os, random, signal, sys, tempfile, threading
import warnings
import numpy as np
try:
    import threadpoolctl  # which itself sets an environment variable
except ImportError:
    threadpoolctl = None

def snapshot():
    state = np.random.get_state()
    found = {
        "numpy errors": np.geterr(),
        "numpy error call": np.geterrcall(),
        "numpy random state": (state[0], state[1].tobytes(), *state[2:]),
        "random state": random.getstate(),
        "numpy print options": {k: repr(v) for k, v in np.get_printoptions().items()},
        "numpy buffer size": np.getbufsize(),
        "locale": locale.setlocale(locale.LC_ALL),
        "warning filters": list(warnings.filters),
        "warnings shown by": (warnings.showwarning, warnings.formatwarning),
        "signal handlers": {s: signal.getsignal(s) for s in signal.valid_signals()},
        "signal mask": signal.pthread_sigmask(signal.SIG_BLOCK, ()) if os.name == "posix" else 0,
        "signal wakeup": wakeup(),
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "umask": umask(),
        "sys.path": list(sys.path),
        "sys.meta_path": list(sys.meta_path),
        "sys hooks": (sys.excepthook, sys.displayhook, sys.unraisablehook, threading.excepthook),
        "trace and profile": (sys.gettrace(), sys.getprofile()),
        "recursion limit": sys.getrecursionlimit(),
        "switch interval": sys.getswitchinterval(),
        "streams": (sys.stdin, sys.stdout, sys.stderr),
        "garbage collection": (gc.isenabled(), gc.get_threshold(), gc.get_debug()),
        "garbage callbacks": list(gc.callbacks),
        "frozen objects": gc.get_freeze_count(),
        "decimal context": repr(decimal.getcontext()),
        "root logger": (logging.root.level, list(logging.root.handlers), logging.root.disabled),
        "logging disabled": logging.root.manager.disable,
        "our logger": our_logger(),
        "thread stack": threading.stack_size(),
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "fault handler": faulthandler.is_enabled(),
        "temporary folder": tempfile.tempdir,
    }
    if threadpoolctl:
        pools = threadpoolctl.threadpool_info()
        found["thread pools"] = [(pool["filepath"], pool["num_threads"]) for pool in pools]
    return found

def our_logger():
    # Looked up without creating it; its level and handlers belong to the program.
    logger = logging.root.manager.loggerDict.get("xbackprop")
    return None if logger is None else (logger.level, list(logger.handlers), logger.propagate)

def wakeup():
    descriptor = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(descriptor)
    return descriptor

def umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask

def compare(what):
    now = snapshot()
    for name, value in before.items():
        if name == "our logger":
            assert now[name] in (None, (logging.NOTSET, [], True)), (what, now[name])
        elif now[name] != value:
            raise SystemExit(f"{what} changed {name}: {value!r} became {now[name]!r}")

# A program with settings of its own, all unlike the defaults.
np.seterr(over="raise", divide="ignore")
np.set_printoptions(precision=3)
np.random.seed(5)
random.seed(5)
decimal.getcontext().prec = 11
gc.set_threshold(650, 9, 8)
warnings.filterwarnings("error")
warnings.filterwarnings("ignore", "of this program", UserWarning)
signal.signal(signal.SIGTERM, lambda *arguments: None)
os.environ["LC_NUMERIC"] = "C"
os.umask(0o27)
random.random()
before = snapshot()

import xbackprop as xb
compare("import xbackprop")
for module in ("nn", "optim", "data", "Trainer", "testing", "observe"):
    getattr(xb, module)
compare("importing the parts")
import xbackprop.cli.main
compare("importing the command line")


def use(device):
    with xb.use_device(device):
        x, y = np.random.default_rng(0).normal(size=(40, 6)), np.arange(40) % 3
        model = xb.nn.Sequential(
            xb.nn.Linear(6, 8), xb.nn.ReLU(), xb.nn.Dropout(0.2), xb.nn.Linear(8, 3)
        )
        optimizer = xb.optim.Adam(model.parameters())
        trainer = xb.Trainer(model, xb.nn.CrossEntropyLoss(), optimizer)
        trainer.fit(x, y, epochs=2, batch_size=8, test=(x, y))
        trainer.predict(x)
        compare(f"training on {device}")
        with tempfile.TemporaryDirectory() as folder:
            tempfile.tempdir = before["temporary folder"]  # the program's own doing
            path = os.path.join(folder, "model.safetensors")
            xb.save(path, model, optimizer)
            xb.load(path)
            compare(f"saving and loading on {device}")
            table = os.path.join(folder, "t.csv")
            with open(table, "w") as file:
                file.write("a,b,label\n" + "".join(f"{i},{i * i},c{i % 2}\n" for i in range(20)))
            archive = os.path.join(folder, "t.npz")
            np.savez(archive, X=x.astype(np.float32), y=y)
            for name in (table, archive):
                load_table(name)
            compare("reading tables")
            for wrong in (b"", b"a,b\n1\n", b"\x00" * 50, b"PK\x03\x04 nothing"):
                for name, read in ((path, xb.load), (table, load_table), (archive, load_table)):
                    with open(name, "wb") as file:
                        file.write(wrong)
                    expect_error(lambda: read(name))
            compare("refusing damaged files")
        expect_error(lambda: model.forward(x))
        expect_error(lambda: trainer.step(x[:, :2], y))
        expect_error(lambda: optimizer.load_state_dict({"param_groups": [], "state": {}}))
        expect_error(lambda: trainer.fit(x * np.nan, y))
        expect_error(lambda: xb.set_device("tpu"))
        compare(f"exceptions on {device}")


def load_table(name):
    target = "label" if name.endswith(".csv") else None
    return xb.data.load_table(name, target=target)


def expect_error(call):
    try:
        call()
    except Exception:
        return
    raise AssertionError("this must be refused")


for device in ("cpu", "fake", "fake:1"):
    use(device)
xb.data.load_digits()
with xb.transfer_log(), xb.use_device("fake"):
    xb.asarray([1.0]) + 1
xb.testing.check_gradients(xb.nn.Linear(2, 2, dtype="float64"), np.ones((2, 2)))
from xbackprop.backend.probe import probe_cuda, reset_probe
reset_probe(); probe_cuda()
xb.set_device("fake"); xb.set_device(None)
compare("the rest")
from xbackprop.backend.fake import xp
with xb.use_device("fake"):
    z = xb.asarray(np.ones(3, np.complex64))
    z.astype("float32"); xp.mean(xb.asarray(np.zeros((0, 2), np.float32)), axis=0)
compare("functions of which NumPy warns")
print("nothing changed")
"""


def run(*options: str, script: str = SCRIPT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *options, "-c", script],
        capture_output=True, text=True, timeout=120, cwd=Path(__file__).parent,
        env={**os.environ, "XBACKPROP_DEVICE": "cpu"},
    )  # fmt: skip


def test_import_and_use_change_nothing() -> None:
    done = run()
    assert done.stdout == "nothing changed\n", done.stdout + done.stderr
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ("np.seterr(over='warn')", "numpy errors"),
        ("np.random.rand()", "numpy random state"),
        ("random.random()", "random state"),
        ("warnings.simplefilter('ignore')", "warning filters"),
        ("os.environ['XB'] = '1'", "environment"),
        ("gc.disable()", "garbage collection"),
        ("logging.basicConfig()", "root logger"),
        ("signal.signal(signal.SIGINT, signal.SIG_DFL)", "signal handlers"),
        ("sys.path.append('x')", "sys.path"),
        ("decimal.getcontext().prec = 3", "decimal context"),
        ("threading.Thread(target=threading.Event().wait, daemon=True).start()", "threads"),
    ],
)
def test_a_change_would_be_seen(change: str, what: str) -> None:
    done = run(script=SCRIPT.replace("xb.data.load_digits()\n", change + "\n"))
    assert f"the rest changed {what}" in done.stderr
