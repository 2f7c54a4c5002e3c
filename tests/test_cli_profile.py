"""`xbackprop profile`: tables, budgets on the stand-in GPU, a trace; mistakes are one line."""

import json
import re

import pytest
from command_line import call

from xbackprop.backend.device import Device
from xbackprop.backend.peak import peak_memory
from xbackprop.cli.profile_comparison import comparison_lines
from xbackprop.cli.profile_tables import _aligned, _scaled, _time
from xbackprop.observe.profiling.peak import measure_peak

NETWORK = """
import numpy as np
from xbackprop import nn

def build():
    return nn.Sequential(nn.Linear(8, 16, rng=0), nn.ReLU(), nn.Linear(16, 4, rng=1))

def with_inputs():
    return build(), np.ones((3, 8), np.float32)

def recurrent():
    return nn.LSTM(4, 3, rng=0), np.ones((5, 2, 4), np.float32)

def tokens():
    return nn.Sequential(nn.Embedding(9, 4, rng=0), nn.Linear(4, 9, rng=1))

class Chatty(nn.Sequential):
    def forward(self, x):
        output, saved = super().forward(x)
        float(output.sum())  # a download
        return output, saved

def chatty():
    return Chatty(nn.Linear(8, 4, rng=0))
"""


@pytest.fixture(autouse=True)
def _network(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(NETWORK)


def profiled(capsys, *words):
    code, out, err = call(capsys, "profile", *words)
    assert (code, err) == (0, "")
    return out


def test_the_tables_of_the_cpu(capsys):
    out = profiled(capsys, "net.py:build", "--device", "cpu", "--steps", "2")
    assert out.startswith("net.py:build on cpu: input (32, 8), sgd, loss mse\n")
    for name in ("batch", "forward", "backward", "update", "step", "linear_backward",
                 "Sequential.0", "MSELoss", "(update)", "this machine at most",
                 "memory of a step", "tracemalloc"):  # fmt: skip
        assert re.search(rf"^{re.escape(name)}|\b{re.escape(name)}\b", out, re.M), name
    assert "launches" not in out  # there are none on the CPU


# A step of the network with batch 32 and MSE, counted by hand:
#   forward  2 linear maps (product, bias), maximum; loss: difference, square, sum, times 1/n
#   backward of the loss 1, ReLU 2, the last linear map 3 (two products, a sum), the first one 2
#   the gradients of 2 weights and 2 biases are written: 4
#   SGD: the number of the step, the learning rate as float32, its product, the difference
FORWARD, BACKWARD, UPDATE = 2 + 1 + 2 + 4, 1 + 2 + 3 + 1 + 4, 4


def test_the_counts_of_a_step_on_the_stand_in(capsys):
    out = profiled(capsys, "net.py:build", "--device", "fake", "--json")
    found = json.loads(out)
    launches = {}
    for phase in found["phases"]:
        name = phase["name"]
        launches[name] = launches.get(name, 0) + phase["traffic"]["launches"]
    assert launches == {"batch": 0, "forward": FORWARD, "backward": BACKWARD, "update": UPDATE}
    traffic = found["traffic"]
    assert (traffic["uploads"], traffic["downloads"], traffic["synchronizations"]) == (2, 0, 0)
    assert traffic["bytes_uploaded"] == 4 * 32 * (8 + 4)
    flops = {row["name"]: row["flops"] for row in found["ops"]}
    assert flops["linear_forward"] == 2 * 32 * (8 * 16 + 16 * 4)
    assert flops["linear_backward"] == 2 * 32 * (8 * 16 + 2 * 16 * 4)  # no gradient of the input
    assert found["peak"] is None
    assert found["ops"][0]["seconds"] is None


@pytest.mark.parametrize("batch", ["1", "7"])
def test_a_budget_that_is_kept_to_the_last_launch(batch, capsys):
    total, size = FORWARD + BACKWARD + UPDATE, 4 * int(batch) * 12
    budget = f"launches={total},uploads=2,downloads=0,synchronizations=0,bytes={size}"
    words = ("net.py:build", "--device", "fake", "--batch", batch)
    out = profiled(capsys, *words, "--budget", budget)
    assert f"ok     launches: {total} of {total}\n" in out
    assert "OVER" not in out
    tight = budget.replace(f"={total},", f"={total - 1},").replace(f"={size}", f"={size - 1}")
    code, out, err = call(capsys, "profile", *words, "--budget", tight)
    assert (code, err) == (1, "")
    assert f"OVER   launches: {total} of {total - 1}, 1 too many\n" in out
    told = f"OVER   bytes: {size} of {size - 1}, 1 too many\n         {size} bytes at xbackprop/"
    assert told in out
    assert re.search(r"^         4 x xbackprop/nn/linear.py:\d+ \(linear_forward\)$", out, re.M)


def test_what_went_beyond_the_budget_is_named_with_its_line(capsys):
    words = ("net.py:chatty", "--device", "fake", "--budget", "downloads=0,synchronizations=0")
    code, out, _ = call(capsys, "profile", *words)
    assert code == 1
    line = NETWORK.splitlines().index("        float(output.sum())  # a download") + 1
    assert f"OVER   downloads: 1 of 0, 1 too many\n         1 x net.py:{line} (float())" in out
    assert "OVER   synchronizations: 1 of 0, 1 too many" in out
    code, out, _ = call(capsys, "profile", *words, "--json")
    assert (code, json.loads(out)["excess"]) == (1, {"downloads": 1, "synchronizations": 1})


def test_other_losses_and_optimizers(capsys):
    for words, told in (
        (["net.py:build", "--optimizer", "adam"], "adam, loss mse"),
        (["net.py:build", "--loss", "cross-entropy"], "loss cross-entropy"),
        (["net.py:build", "--loss", "none"], "loss none"),
        (["net.py:recurrent"], "input (5, 2, 4), sgd, loss none"),
        (["mlp"], "loss cross-entropy"),
        (["net.py:tokens"], "loss cross-entropy"),
    ):
        budget = ("--budget", "downloads=0,synchronizations=0")
        assert told in profiled(capsys, *words, "--device", "fake", *budget), words


def test_a_trace_is_written(capsys, tmp_path):
    profiled(capsys, "net.py:build", "--device", "cpu", "--steps", "1", "--trace", "it.json")
    events = json.loads((tmp_path / "it.json").read_text())["traceEvents"]
    names = [(event.get("cat"), event["name"]) for event in events]
    for expected in (("phase", "forward"), ("layer", "Sequential.2"), ("op", "sgd_update")):
        assert expected in names
    assert all(event["dur"] >= 0 and event["ts"] >= 0 for event in events if event["ph"] == "X")


def test_batches_are_compared(capsys):
    out = profiled(capsys, "net.py:build", "--devices", "cpu", "--batch", "1,8", "--steps", "2")
    assert [line.split()[0] for line in out.splitlines()] == ["batch", "1", "8"]
    out = profiled(capsys, "net.py:build", "--device", "cpu", "--batch", "1,8", "--steps", "2",
                   "--json")  # fmt: skip
    rows = json.loads(out)["rows"]
    assert [(row["batch"], row["device"]) for row in rows] == [(1, "cpu"), (8, "cpu")]
    assert all(row["seconds"] > 0 for row in rows)


@pytest.mark.parametrize(
    ("gpu", "told"),
    [
        ((3.0, 2.0, 1.0), "cuda:0 pays from batch 32 on"),
        ((1.0, 1.0, 1.0), "cuda:0 pays from batch 1 on"),
        ((1.0, 9.0, 1.0), "cuda:0 pays from batch 1024 on"),
        ((3.0, 3.0, 9.0), "cuda:0 is not faster than cpu at batch 1024"),
    ],
)
def test_where_the_gpu_begins_to_pay(gpu, told):
    batches = (1, 32, 1024)
    cpu = (2.0, 2.5, 8.0)
    found = {(batch, "cpu"): cpu[n] for n, batch in enumerate(batches)}
    found |= {(batch, "cuda:0"): gpu[n] for n, batch in enumerate(batches)}
    *table, last = comparison_lines(found, batches, ["cpu", "cuda:0"])
    assert last == told
    assert table[0].split() == ["batch", "cpu", "ms", "cuda:0", "ms", "cpu/s", "cuda:0/s"]
    assert table[1].split() == ["1", "2000.000", f"{gpu[0] * 1000:.3f}", "0.5", f"{1 / gpu[0]:.4g}"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "the following arguments are required: MODEL"),
        (("nothing",), "MODEL: expected a run folder"),
        (("net.py:build", "--budget", "launch=3"), "Did you mean launches?"),
        (("net.py:build", "--budget", "launches"), "expected KIND=N"),
        (("net.py:build", "--budget", "launches=-1"), "at least 0; got '-1'"),
        (("net.py:build", "--device", "cpu", "--budget", "launches=1"), "--budget needs --device"),
        (("net.py:build", "--device", "fake", "--trace", "t"), "--trace needs times"),
        (("net.py:build", "--devices", "fake"), "--devices: fake has no time"),
        (("net.py:build", "--devices", "cpu", "--device", "cpu"), "got both"),
        (("net.py:build", "--devices", "cpu", "--trace", "t"), "leave out --devices"),
        (("net.py:build", "--devices", "cpu,quantum"), "unknown device 'quantum'"),
        (("net.py:build", "--batch", "0"), "at least 1; got '0'"),
        (("net.py:build", "--steps", "none"), "at least 1; got 'none'"),
        (("net.py:build", "--optimizer", "best"), "expected one of adam, adamw, sgd"),
        (("net.py:build", "--loss", "best"), "expected one of auto, mse"),
        (("net.py:with_inputs", "--devices", "cpu", "--batch", "1,3"), "brings inputs of its own"),
        (("net.py:recurrent", "--loss", "mse"), "--loss mse takes one output"),
    ],
)
def test_mistakes_are_one_line(words, message, capsys):
    code, out, err = call(capsys, "profile", *words)
    assert (code, out) == (2, "")
    assert err.startswith("xbackprop profile: error: ")
    assert err.count("\n") == 1
    assert message in err


def test_a_gpu_that_is_not_there_cannot_be_compared(capsys, monkeypatch):
    from xbackprop.backend.device import DeviceUnavailableError
    from xbackprop.cli import devices

    def unavailable(name):
        raise DeviceUnavailableError(f"device {name!r} cannot be used")

    monkeypatch.setattr(devices, "use_device", unavailable)
    code, out, err = call(capsys, "profile", "net.py:build", "--devices", "cuda", "--batch", "1,2")
    assert (code, out) == (2, "")
    assert err == "xbackprop profile: error: device 'cuda' cannot be used\n"


def test_a_trace_that_cannot_be_written(capsys):
    words = ("net.py:build", "--device", "cpu", "--steps", "1", "--trace", "no/folder/it")
    code, _, err = call(capsys, "profile", *words)
    assert code == 1
    assert err.startswith("xbackprop profile: error: cannot write no/folder/it: ")


def test_peak_memory():
    import numpy as np

    import xbackprop as xb

    with peak_memory(Device("cpu")) as found:
        array = np.ones(1_000_000, np.uint8)
        del array
    assert 1_000_000 <= found.peak - found.before < 1_100_000
    with xb.use_device("fake"):
        kept = xb.asarray(np.ones(1000, np.float32))
        with peak_memory(Device("fake")) as found:
            array = kept + kept
            del array
    assert (found.before >= 4000, found.peak - found.before) == (True, 4000)


def test_the_peak_of_a_machine(monkeypatch):
    from xbackprop.observe.profiling import peak

    monkeypatch.setattr(peak, "_SIDE", {"cpu": 64})
    monkeypatch.setattr(peak, "_COPIED_BYTES", {"cpu": 1 << 16})
    found = measure_peak(Device("cpu"), "float32")
    assert found.flops_per_second > 1e6
    assert found.bytes_per_second > 1e6
    assert measure_peak(Device("fake"), "float32") is None


def test_numbers_are_short():
    assert [_scaled(n) for n in (0, 7, 999, 1000, 12_345, 3.2e9, 5e13)] == [
        "0 ", "7 ", "999 ", "1 k", "12.3 k", "3.2 G", "50 T",
    ]  # fmt: skip
    assert [_time(None), _time(2e-6), _time(0.25)] == ["-", "2.0 us", "250.00 ms"]
    assert _aligned(["op", "x", "y"], [["a", "1", "-"], ["bb", "22", "-"]]) == [
        "op   x", "a    1", "bb  22",
    ]  # fmt: skip
