"""fork, spawn and forkserver: no hang, the same bits, and no GPU where a fork has lost it."""

import multiprocessing
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from workload import train

import xbackprop as xb

HERE = Path(__file__).parent
SECONDS = 60  # a watchdog: what hangs is ended and fails
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

PRELUDE = """
import os, sys, threading, time, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads, which are the point
import numpy as np
import xbackprop as xb
from xbackprop import DeviceUnavailableError
from workload import train, Workload


def in_child(function, seconds=30):
    '''Run in a forked child and return its exit code; -1 when it hung.'''
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            function()
            code = 0
        except BaseException:
            import traceback
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    return -1


def refuses(call, device="fake"):
    try:
        call()
    except DeviceUnavailableError as error:
        text = str(error)
        assert f"forked after {device!r} was used" in text, text
        assert "'spawn'" in text and "'forkserver'" in text, text
        return
    raise AssertionError("a device lost by a fork was used")
"""


def run_script(body: str, seconds: float = SECONDS, **environment: str) -> str:
    """Run a script in a process of its own and return what it printed."""
    script = PRELUDE + textwrap.dedent(body)
    env = {**os.environ, "XBACKPROP_DEVICE": "cpu", **environment}
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=HERE, env=env, capture_output=True, text=True, timeout=seconds,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- children that train -------------------------------------------------------------------


def report(queue: "multiprocessing.Queue[str]", seed: int, steps: int) -> None:
    queue.put(train(seed, steps))


def train_in_process(method: str, seed: int, steps: int) -> str:
    """Train in a child and return its digest; TimeoutError when it hung."""
    context = multiprocessing.get_context(method)
    queue: multiprocessing.Queue[str] = context.Queue()
    process = context.Process(target=report, args=(queue, seed, steps))
    process.start()
    try:
        return queue.get(timeout=SECONDS)
    finally:
        process.join(SECONDS)
        if process.is_alive():
            process.kill()
            raise TimeoutError(f"{method}: the child did not end")


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_a_child_gets_the_same_bits(method: str) -> None:
    assert train_in_process(method, 3, 20) == train(3, 20)


FORKS_WHILE_TRAINING = """
import faulthandler, linecache, re, tempfile


def hangs_in_a_product(stack):
    '''OpenBLAS has locks of its own, which a fork beside a product may leave held (1 in 300).'''
    stack.seek(0)
    frame = re.search(r'File "(.*)", line ([0-9]+)', stack.read())
    return frame is not None and ".dot(" in linecache.getline(frame[1], int(frame[2]))


number, threads_training = {number}, 4
expected = [train(seed, 3) for seed in range(number)]
stop = threading.Event()


def keep_training(seed):
    workload = Workload(seed)
    while not stop.is_set():
        workload.step()
        workload.refuse()


sys.setswitchinterval(1e-5)
threads = [threading.Thread(target=keep_training, args=(i,)) for i in range(threads_training)]
for thread in threads:
    thread.start()
codes, in_numpy = [], 0
for seed in range(number):
    stack = tempfile.TemporaryFile("w+")
    def child(seed=seed):
        faulthandler.dump_traceback_later(25, file=stack)
        assert train(seed, 3) == expected[seed]
        faulthandler.cancel_dump_traceback_later()
    codes.append(in_child(child))
    in_numpy += codes[-1] == -1 and hangs_in_a_product(stack)
    time.sleep(0.001 * (seed % 7))
stop.set()
for thread in threads:
    thread.join()
assert train(0, 3) == expected[0]
print(codes.count(0), codes.count(-1) - in_numpy, in_numpy)
"""


@needs_fork
def test_forks_while_threads_train() -> None:
    script = FORKS_WHILE_TRAINING.format(number=20)
    good, hung, in_numpy = map(int, run_script(script, 2 * SECONDS).split())
    assert (good + in_numpy, hung) == (20, 0)
    assert in_numpy <= 1


@needs_fork
def test_no_lock_stays_locked_in_a_child() -> None:
    """Every lock of the library is held by another thread at the moment of the fork."""
    run_script("""
        from xbackprop import initializers
        from xbackprop.backend import fork
        import xbackprop.backend.fake, xbackprop.backend.probe

        holders = [renew.__self__ for renew in fork._renewals if hasattr(renew, "__self__")]
        assert len(holders) >= 12, holders
        generator = xb.manual_seed(5)
        state = generator.bit_generator.state
        everything_held, forked = threading.Event(), threading.Event()

        def hold():
            for holder in holders:
                holder.lock.acquire()
            generator.bit_generator.lock.acquire()
            everything_held.set()
            forked.wait()

        thread = threading.Thread(target=hold)
        thread.start()
        everything_held.wait()

        def child():
            for holder in holders:
                assert holder.lock.acquire(timeout=1), holder
            own = initializers.as_generator()
            assert own.bit_generator.state == state  # and draws what the parent would
            assert own.normal() == np.random.default_rng(5).normal()
            xb.set_device(None)
            train(0, 3)
            train(0, 3, "fake")

        assert in_child(child) == 0
        forked.set()
        """)


def test_every_lock_of_the_library_is_renewed() -> None:
    """A lock made in another way would stay locked in a child, so there is none."""
    for path in Path(xb.__file__).parent.rglob("*.py"):
        if path.name != "fork.py" and "cli" not in path.parts:
            text = path.read_text(encoding="utf-8")
            for name in ("Lock(", "RLock(", "Condition(", "Semaphore(", "Barrier("):
                assert f"threading.{name}" not in text, path


# --- devices -------------------------------------------------------------------------------


@needs_fork
def test_a_stand_in_gpu_used_before_the_fork_is_refused_after_it() -> None:
    run_script(
        """
        x = xb.asarray([1.0, 2.0])
        place = xb.device_of(x)
        model = xb.nn.Linear(2, 1, rng=0)
        model(x)

        def child():
            from xbackprop.backend.fake import xp
            refuses(lambda: xb.asarray([1.0]))
            refuses(lambda: xb.asarray([1.0], device="fake:1"))
            refuses(lambda: xb.asarray([1.0], device=place))
            refuses(lambda: x + x)
            refuses(lambda: x.sum())
            refuses(lambda: x.__iadd__(1.0))
            refuses(lambda: float(x[0]))
            refuses(lambda: xb.to_host(x))
            refuses(lambda: xp.zeros(3))
            refuses(lambda: model(x))
            refuses(lambda: model.to("cpu"))
            refuses(lambda: xb.set_device("fake"))
            refuses(lambda: xb.use_device("fake").__enter__())
            refuses(lambda: train(0, 1, "fake"))
            xb.set_device("cpu")
            assert train(0, 3) == digest
            def grandchild():
                refuses(lambda: xb.asarray([1.0], device="fake"))
                assert train(0, 3) == digest
            assert in_child(grandchild) == 0

        digest = train(0, 3)
        assert in_child(child) == 0
        x + x  # and the parent goes on
        assert xb.to_host(x).tolist() == [1.0, 2.0]
        """,
        XBACKPROP_DEVICE="fake",
    )


@needs_fork
def test_a_child_forked_before_the_first_use_may_use_the_device() -> None:
    run_script("""
        xb.set_device("fake")  # chosen, and not used yet
        xb.nn  # imported

        def child():
            train(0, 2, "fake")
            xb.asarray([1.0])

        assert in_child(child) == 0
        train(0, 2, "fake")  # what the child did is nothing to the parent
        assert in_child(lambda: refuses(lambda: xb.asarray([1.0]))) == 0
        """)


CUDA = """
from cupy_stand_in import Gpu, make_cupy
cupy = sys.modules["cupy"] = make_cupy(Gpu(), Gpu())
cupy.cuda.Device = lambda index: __import__("contextlib").nullcontext()
cupy.ndarray = type("ndarray", (), {"__module__": "cupy"})
"""


@needs_fork
def test_cuda_used_before_the_fork_is_refused_after_it() -> None:
    run_script(
        CUDA
        + textwrap.dedent("""
        assert str(xb.default_device()) == "cuda:0"
        contexts = len(cupy.journal.contexts)

        def child():
            cupy.journal.contexts.clear()
            inherited = xb.default_device()
            assert str(inherited) == "cuda:0"  # what was asked for is not silently another
            refuses(lambda: xb.asarray([1.0]), "cuda")
            refuses(lambda: xb.asarray([1.0], device="cuda:1"), "cuda")
            refuses(lambda: inherited.activate(), "cuda")
            refuses(lambda: xb.nn.Linear(2, 2), "cuda")
            refuses(lambda: xb.set_device("cuda"), "cuda")
            refuses(lambda: xb.use_device("cuda:0").__enter__(), "cuda")
            from xbackprop.backend.probe import probe_cuda
            report = probe_cuda()
            assert report.state == "other", report
            assert "forked after 'cuda' was used" in report.reason
            assert "spawn" in report.fix
            assert xb.set_device(None).kind == "cpu"  # auto falls back, and says so
            assert "forked after" in xb.explain_default_device().reason
            train(0, 2)
            train(0, 2, "fake")  # another kind of device, which the parent did not use
            assert not cupy.journal.contexts

        assert in_child(child) == 0
        assert len(cupy.journal.contexts) == contexts
        """),
        XBACKPROP_DEVICE="auto",
    )


@needs_fork
def test_a_child_forked_before_cuda_was_started_may_use_it() -> None:
    run_script(
        CUDA
        + textwrap.dedent("""
        def child():
            assert str(xb.set_device("cuda:1")) == "cuda:1"
            xb.default_device().activate()

        assert in_child(child) == 0
        assert not cupy.journal.contexts
        assert str(xb.set_device("cuda:0")) == "cuda:0"
        """)
    )


@needs_fork
def test_a_machine_without_a_gpu_is_not_blamed_on_the_fork() -> None:
    """Looking for a GPU where there is none is no use of one."""
    run_script(
        """
        from cupy_stand_in import make_cupy
        sys.modules["cupy"] = make_cupy()
        assert xb.default_device().kind == "cpu"

        def child():
            xb.set_device(None)
            assert "forked" not in xb.explain_default_device().reason
            try:
                xb.set_device("cuda")
            except DeviceUnavailableError as error:
                assert "no device" in str(error), error

        assert in_child(child) == 0
        """,
        XBACKPROP_DEVICE="auto",
    )
