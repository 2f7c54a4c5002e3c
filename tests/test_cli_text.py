"""`xbackprop train --model gpt` on texts, and text from what it trained."""

import json

import numpy as np
import pytest
from command_line import call, metrics_of

import xbackprop as xb
from xbackprop.examples import generate

TEXT = "the cat sat on the mat. the dog sat on the log.\n" * 60
QUICK = [
    "train", "--model", "gpt", "--data", "text.txt", "--layers", "1", "--heads", "2",
    "--width", "16", "--context", "16", "--lr", "0.01", "--warmup", "5",
]  # fmt: skip


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XBACKPROP_DEVICE", "cpu")
    (tmp_path / "text.txt").write_text(TEXT)
    before = xb.default_device()
    xb.set_device(None)
    yield
    monkeypatch.undo()
    xb.set_device(before)


def test_a_gpt_learns_a_text_and_writes_meanwhile(capsys, tmp_path):
    code, out, err = call(capsys, *QUICK, "--out", "run", "--sample-every", "20", "--epochs", "6")
    assert (code, err) == (0, "")
    assert "gpt of 1 layers, 2 heads, width 16, context 16" in out
    assert "learning rate 0.01 down to 0 by cosine" in out
    assert "hint" not in out
    assert "step 20 writes" in out
    rows = metrics_of(tmp_path / "run")
    assert rows[-1]["test_loss"] < 0.6 * rows[0]["test_loss"]
    assert rows[-1]["test_accuracy"] > 0.5
    last = out.splitlines()[-1]
    assert f"test loss {rows[-1]['test_loss']:.4f} nats a token (perplexity" in last
    assert (tmp_path / "run" / "curves.png").exists()


def test_samples_do_not_change_the_training(capsys, tmp_path):
    call(capsys, *QUICK, "--out", "one", "--sample-every", "3", "--dropout", "0.1")
    call(capsys, *QUICK, "--out", "two", "--quiet", "--dropout", "0.1")
    assert metrics_of(tmp_path / "one") == metrics_of(tmp_path / "two")


def test_command_of_the_config_gives_the_same_run(capsys, tmp_path):
    call(capsys, *QUICK, "--out", "one", "--prompt", "the", "--accumulate", "2")
    config = json.loads((tmp_path / "one" / "config.json").read_text())
    assert config["optimizer"]["lr"] == config["arguments"]["lr"] == 0.01
    call(capsys, *config["command"][1:], "--out", "two")
    assert metrics_of(tmp_path / "one") == metrics_of(tmp_path / "two")


def test_a_stopped_run_goes_on_to_the_same_end(capsys, tmp_path):
    call(capsys, *QUICK, "--out", "whole")
    call(capsys, *QUICK, "--out", "part", "--keep", "9", "--save-steps", "10")
    for path in sorted((tmp_path / "part" / "checkpoints").iterdir())[2:]:
        path.unlink()
    code, _, err = call(capsys, "train", "--resume", "part")
    assert (code, err) == (0, "")
    assert metrics_of(tmp_path / "part") == metrics_of(tmp_path / "whole")
    code, _, err = call(capsys, "train", "--resume", "part", "--epochs", "9")
    assert code == 2
    assert "3 epochs" in err


def test_a_short_run_rises_for_a_tenth_of_it(capsys, tmp_path):
    at = QUICK.index("--warmup")
    call(capsys, *QUICK[:at], *QUICK[at + 2 :], "--out", "run", "--quiet")
    arguments = json.loads((tmp_path / "run" / "config.json").read_text())["arguments"]
    checkpoint = sorted((tmp_path / "run" / "checkpoints").iterdir())[-1]
    updates = int(checkpoint.stem.removeprefix("step-"))
    assert arguments["warmup"] == updates // 10 > 0


def test_weight_decay_is_adamws(capsys):
    from xbackprop.cli.options import read_options

    assert read_options(["--model", "gpt"]).weight_decay == 0.1
    assert read_options(["--model", "gpt", "--optimizer", "sgd"]).weight_decay is None


@pytest.mark.parametrize("model", ["gpt", "mlp"])
def test_decay_and_bound_reach_the_training(capsys, tmp_path, model):
    from xbackprop.cli.networks import make_network, make_optimizer
    from xbackprop.cli.options import read_options
    from xbackprop.cli.tasks import Task, TokenTask

    options = read_options(["--model", model, "--optimizer", "adamw", "--weight-decay", "0.25"])
    task = (TokenTask if model == "gpt" else Task)("cross-entropy", 20, 20)
    network = make_network((16,), options, task, np.random.default_rng(0))
    groups = make_optimizer(network, options, task).param_groups
    expected = [0.25, 0.0] if model == "gpt" else [0.25]
    assert [group["weight_decay"] for group in groups] == expected
    rows = []
    for bound in ("1e-6", "1e6"):
        words = ["--optimizer", "sgd", "--clip-norm", bound, "--out", bound, "--quiet"]
        call(capsys, *QUICK, *words, "--epochs", "1")
        rows.append(metrics_of(tmp_path / bound)[-1]["train_loss"])
    assert rows[0] > rows[1] + 0.01  # hardly moved


def test_byte_pairs(capsys, tmp_path):
    pytest.importorskip("tokenizers")
    code, out, err = call(
        capsys, *QUICK, "--tokens", "bpe", "--vocab-size", "270", "--out", "run", "--epochs", "6"
    )
    assert (code, err) == (0, "")
    assert "270 different ones" in out
    code = generate.main(["run", "--prompt", "the cät", "--length", "20", "--seed", "1"])
    assert code == 0
    assert capsys.readouterr().out.startswith("the cät")


def test_presets_give_sizes_and_options_change_them(capsys, tmp_path):
    from xbackprop.cli.options import read_options

    options = read_options(["--model", "gpt"])
    assert (options.data, options.layers, options.width) == ("shakespeare", 4, 128)
    options = read_options(["--model", "gpt", "--preset", "micro", "--layers", "2"])
    assert (options.layers, options.width, options.dropout) == (2, 384, 0.2)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--data", "text.txt"), ["--model gpt"]),
        (("--data", "shakespeare", "--model", "cnn"), ["--model gpt"]),
        (("--model", "gpt", "--hidden", "3"), ["--hidden", "mlp and cnn"]),
        (("--model", "gpt", "--target", "y"), ["--target"]),
        (("--model", "gpt", "--loss", "mse"), ["--loss"]),
        (("--model", "mlp", "--context", "8"), ["--context", "gpt"]),
        (("--model", "gpt", "--preset", "huge"), ["nano, micro, gpt2"]),
        ((*QUICK[1:], "--warmup", "9999"), ["--warmup 9999", "updates"]),
        ((*QUICK[1:], "--heads", "3"), ["--heads 3", "16"]),
        ((*QUICK[1:], "--context", "999999"), ["--context", "999999"]),
        ((*QUICK[1:], "--vocab-size", "300"), ["--tokens bpe"]),
        ((*QUICK[1:], "--prompt", "Ö"), ["--prompt", "'Ö'"]),
        ((*QUICK[1:], "--prompt", ""), ["--prompt", "empty"]),
        (("--model", "gpt", "--data", "absent.txt"), ["absent.txt"]),
        (("--model", "gpt", "--data", "shakespear"), ["Did you mean 'shakespeare'"]),
        (("--model", "gpt", "--data", "digits"), ["digits"]),
        ((*QUICK[1:], "--width", "99999999999", "--heads", "1"), ["--width", "memory"]),
        (("--weight-decay", "-1"), ["from 0 on"]),
        (("--clip-norm", "0"), ["above 0"]),
    ],
)
def test_what_makes_no_sense_is_one_line(capsys, arguments, words):
    code, out, err = call(capsys, "train", *arguments)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1, err
    for word in words:
        assert word in err


def test_a_text_that_is_no_utf_8_is_named_with_its_line(capsys, tmp_path):
    (tmp_path / "text.txt").write_bytes(b"good\n" * 500 + b"b\xe4d\n" + b"good\n" * 500)
    code, _, err = call(capsys, *QUICK)
    assert code == 2
    assert "line 501" in err
    assert len(err.splitlines()) == 1


# --- text from a model --------------------------------------------------------------------


@pytest.fixture
def trained(capsys):
    call(capsys, *QUICK, "--out", "run", "--quiet")


@pytest.mark.usefixtures("trained")
def test_text_is_drawn_again_by_its_seed(capsys):
    texts = []
    for seed in ("1", "1", "2"):
        words = ["run", "--prompt", "the ", "--seed", seed, "--length", "40", "--top-k", "5"]
        assert generate.main(words) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] != texts[2]
    assert texts[0].startswith("the ")
    assert len(texts[0]) == len("the ") + 40 + 1
    for options in (["--temperature", "0"], ["--top-p", "0.5"], ["--device", "fake"], []):
        assert generate.main(["run/model.safetensors", *options]) == 0


@pytest.mark.usefixtures("trained")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["run", "--prompt", "Ö"], "'Ö'"),
        (["run", "--device", "nonsense"], "unknown device"),
        (["run", "--prompt", ""], "at least one token"),
        (["run", "--top-p", "2"], "top_p"),
        (["run", "--temperature", "-1"], "--temperature"),
        (["absent"], "absent"),
        (["run/config.json"], "config.json"),
        ([], "MODEL"),
    ],
)
def test_generate_says_in_one_line_what_is_wrong(capsys, words, expected):
    assert generate.main(words) != 0
    err = capsys.readouterr().err
    assert expected in err
    assert len(err.splitlines()) == 1


def test_a_model_of_something_else_writes_nothing(capsys):
    call(capsys, "train", "--epochs", "1", "--hidden", "4", "--quiet", "--out", "digits")
    assert generate.main(["digits"]) != 0
    assert "no language model" in capsys.readouterr().err


def test_a_step_on_a_device_moves_the_batch_only():
    from xbackprop.cli.networks import make_network, make_optimizer, make_schedule
    from xbackprop.cli.options import read_options
    from xbackprop.cli.tasks import TokenTask

    with xb.use_device("fake"):
        options, task = read_options(QUICK[1:]), TokenTask("cross-entropy", 20, 20)
        model = make_network((16,), options, task, np.random.default_rng(0))
        optimizer = make_optimizer(model, options, task)
        trainer = xb.Trainer(
            model, task.make_loss(), optimizer, clip_norm=1.0, check_every=10**9,
            scheduler=make_schedule(optimizer, options, 100), scheduler_interval="step",
        )  # fmt: skip
        tokens = np.random.default_rng(0).integers(0, 20, (4, 17))
        for count in range(3):
            with xb.transfer_log() as log:
                trainer.step(tokens[:, :-1], tokens[:, 1:])
            assert count == 0 or log.uploads == 2
            assert (log.downloads, log.synchronizations) == (0, 0)


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
@pytest.mark.parametrize("accumulate", [1, 2, 3])
def test_learning_rate_of_every_update(schedule, accumulate):
    from xbackprop.cli.networks import make_schedule
    from xbackprop.cli.options import read_options

    words = ["--schedule", schedule, "--warmup", "4", "--accumulate", str(accumulate)]
    options = read_options([*words, "--batch-size", "10", "--epochs", "3"])
    model = xb.nn.Linear(2, 1, rng=0)
    optimizer = xb.optim.SGD(model.parameters(), lr=1.0)
    trainer = xb.Trainer(
        model, xb.nn.MSELoss(), optimizer, accumulation_steps=accumulate,
        scheduler=make_schedule(optimizer, options, 95), scheduler_interval="step",
    )  # fmt: skip
    rates = []
    x = np.zeros((95, 2), np.float32)
    trainer.fit(
        x, x[:, :1], epochs=3, batch_size=10,
        on_batch=lambda done, total: rates.append(float(optimizer.param_groups[0]["lr"])),
    )  # fmt: skip
    rates.append(float(optimizer.param_groups[0]["lr"]))  # the last group may be a short one
    updates = 3 * -(-10 // accumulate)
    assert rates[0] == pytest.approx(0.2 if accumulate > 1 else 0.4)
    assert max(rates) == pytest.approx(1.0)
    assert rates[-1] == pytest.approx(1.0 if schedule == "constant" else 0.0, abs=1e-12)
    assert trainer.steps == updates
    before = 0.5 * (1 + np.cos(np.pi * (updates - 5) / (updates - 4)))
    last_but_one = [rate for rate in rates if rate != rates[-1]][-1]
    assert last_but_one == pytest.approx(0.8 if schedule == "constant" else before)


def test_a_rate_that_rises_is_announced(capsys):
    _, out, _ = call(capsys, "train", "--epochs", "1", "--warmup", "7")
    assert "learning rate 0.002 after 7 updates that raise it," in out


def test_weights_that_are_no_good_write_nothing(capsys):
    code, out, err = call(capsys, *QUICK, "--lr", "1e30", "--sample-every", "1")
    assert code == 1
    assert "writes nothing" in out
    assert "Try an --lr below" in err
    assert len(err.splitlines()) == 1
