"""The arguments of ``xbackprop train``."""

import argparse
from typing import TYPE_CHECKING

from xbackprop.cli.choices import (
    ACTIVATIONS,
    LOSSES,
    MODELS,
    ON_NAN,
    OPTIMIZERS,
    PRECISIONS,
    PREPROCESS,
    PRESETS,
    RECORD_EVERY,
    SCHEDULES,
    TASKS,
    TOKENS,
    UNKNOWN,
)
from xbackprop.cli.parser import (
    LineParser,
    column_names,
    layer_widths,
    number_from_zero,
    odd_number,
    one_of,
    positive_number,
    share,
    whole_number,
)

if TYPE_CHECKING:
    from xbackprop.cli.options import TrainOptions

_EPILOG = """\
examples:
  xbackprop train
  xbackprop train flowers.csv --target species
  xbackprop train --hidden 64,32 --activation tanh --optimizer sgd --lr 0.1
  xbackprop train --data flowers.csv --target species --standardize
  xbackprop train --data houses.csv --target price --regression --standardize
  xbackprop train --data mnist-5k --model cnn
  xbackprop train --model gpt --data shakespeare
  xbackprop train --resume runs/digits

Ctrl-C ends the run after the current step and keeps what there is; a second one leaves at once.
--resume goes on with a run that was stopped or killed, bit by bit as if it had not been.
Exit code: 0; 1 when the run failed; 2 for a mistake in the request; 130 or 143 when it was stopped.
"""


def make_parser(default: "TrainOptions") -> LineParser:
    """Return the reader of the arguments; ``default`` is for what it says of them."""
    parser = LineParser(
        "xbackprop train",
        "Train a network: on the UCI handwritten digits that come with the package, on 5,000 of\n"
        "MNIST's, on plays of Shakespeare, or on a table or text of yours. Writes a run folder\n"
        "with the model, its settings, its metrics, plots, and checkpoints to go on from.",
        _EPILOG,
    )
    _add_data(parser.add_argument_group("data"))
    network = parser.add_argument_group("network and training")
    _add_network(network)
    _add_training(network, default)
    _add_text_options(parser.add_argument_group("texts (--model gpt)"))
    run = parser.add_argument_group("run")
    _add_run(run, default)
    _add_records(run)
    run.add_argument("--quiet", action="store_true", help="print the result only")
    return parser


def _add_data(data: argparse._ArgumentGroup) -> None:
    data.add_argument(
        "table", nargs="?", metavar="DATA",
        help="a table: .csv, .tsv, .parquet, .feather or .arrow, of numbers and texts, prepared\n"
        "by scikit-learn (extra data); or what --data takes",
    )  # fmt: skip
    data.add_argument(
        "--data", metavar="DATA",
        help="digits (default), mnist-5k, a .csv file of numbers as they are, an .npz file\n"
        "with X, y; for a gpt: shakespeare (its default), or a .txt file",
    )  # fmt: skip
    data.add_argument(
        "--target", metavar="COLUMN",
        help="what to predict; required for a table; several quantities as A,B",
    )  # fmt: skip
    data.add_argument(
        "--features", type=column_names, metavar="A,B",
        help="the columns of a table to predict it from (default: all others)",
    )  # fmt: skip
    data.add_argument(
        "--regression", action="store_true", help="the target is a quantity, not a class"
    )
    data.add_argument(
        "--task", type=one_of(TASKS), metavar="NAME",
        help=f"{' or '.join(TASKS)} (default: found out by the target)",
    )  # fmt: skip
    data.add_argument(
        "--preprocess", type=one_of(PREPROCESS), metavar="NAME",
        help="columns: fill in what is missing, scale numbers, one column for each text; none:\n"
        "numbers as they are (default: columns, but none for --data FILE.csv)",
    )  # fmt: skip
    data.add_argument(
        "--unknown", type=one_of(UNKNOWN), metavar="NAME",
        help="a text that the training part has not: ignore (zeros, with a note; default) or error",
    )  # fmt: skip
    data.add_argument(
        "--standardize", action="store_true",
        help="bring each feature, and the target of a regression, to mean 0 and deviation 1",
    )  # fmt: skip


def _add_network(network: argparse._ArgumentGroup) -> None:
    network.add_argument(
        "--model", type=one_of(tuple(MODELS)), metavar="NAME",
        help="mlp (fully connected layers; default), cnn or resnet (convolutions, for images), or\n"
        "gpt (a transformer, for texts)",
    )  # fmt: skip
    network.add_argument(
        "--hidden", type=layer_widths, metavar="64,32",
        help="widths of the hidden layers, or none (default: 256; none for cnn)",
    )  # fmt: skip
    network.add_argument(
        "--channels", type=layer_widths, metavar="16,32",
        help="channels of each convolution of a cnn, with normalization and pooling after it\n"
        f"(default: {_listed('cnn', 'channels')}), or of the first stage of a resnet of 18 layers\n"
        f"(default: {_listed('resnet', 'channels')})",
    )  # fmt: skip
    network.add_argument(
        "--kernel-size", type=odd_number, metavar="N",
        help=f"of a cnn's convolutions, odd (default: {_listed('cnn', 'kernel_size')})",
    )  # fmt: skip
    network.add_argument(
        "--dropout", type=share, metavar="P",
        help="share of activations left out while training: after each hidden layer of an mlp\n"
        f"(default: 0), before the last layer of a cnn (default: {_listed('cnn', 'dropout')}),\n"
        "everywhere in a gpt (default: the preset's; nano 0)",
    )  # fmt: skip
    network.add_argument(
        "--activation", type=one_of(ACTIVATIONS), metavar="NAME",
        help=f"after each hidden layer: {', '.join(ACTIVATIONS)} (default: relu)",
    )  # fmt: skip


def _add_training(training: argparse._ArgumentGroup, default: "TrainOptions") -> None:
    training.add_argument(
        "--loss", type=one_of(LOSSES), metavar="NAME",
        help=f"{', '.join(LOSSES)} (default: cross-entropy; for a quantity mse)",
    )  # fmt: skip
    training.add_argument(
        "--optimizer", type=one_of(OPTIMIZERS), metavar="NAME",
        help=f"{', '.join(OPTIMIZERS)} (default: adam; adamw for a gpt)",
    )  # fmt: skip
    training.add_argument(
        "--lr", type=positive_number, metavar="RATE",
        help="learning rate (default: 0.002; for sgd one that suits the loss; 0.001 for a gpt)",
    )  # fmt: skip
    training.add_argument(
        "--schedule", type=one_of(SCHEDULES), metavar="NAME",
        help="of the learning rate: constant, or cosine, to 0 at the end of the run (default:\n"
        "constant for mlp, cosine for the others)",
    )  # fmt: skip
    training.add_argument(
        "--warmup", type=whole_number(0), metavar="N",
        help="updates over which the learning rate rises at first (default: 0; gpt 100)",
    )  # fmt: skip
    training.add_argument(
        "--weight-decay", type=number_from_zero, metavar="X",
        help="of the optimizer (default: adamw 0.01, others 0; gpt 0.1, of its matrices only)",
    )  # fmt: skip
    training.add_argument(
        "--clip-norm", type=positive_number, metavar="X",
        help="largest norm of all gradients together (default: none; gpt 1)",
    )  # fmt: skip
    training.add_argument(
        "--epochs", type=whole_number(1), metavar="N",
        help=f"how often to go through the data (default: {_defaults('epochs')})",
    )  # fmt: skip
    training.add_argument(
        "--batch-size", type=whole_number(1), metavar="N",
        help=f"samples per step (default: {_defaults('batch_size')})",
    )  # fmt: skip
    training.add_argument(
        "--accumulate", type=whole_number(1), metavar="N",
        help="batches per update: as large a batch as if it fitted into memory (default: 1)",
    )  # fmt: skip
    training.add_argument(
        "--shards", type=whole_number(1), metavar="N",
        help="parts of each batch, at once in threads of the CPU (default: 1; needs extra fast);\n"
        "the same N gives the same bits, whatever the threads; for mlp and gpt",
    )  # fmt: skip
    training.add_argument(
        "--graph", action="store_true",
        help="record a step on the GPU and replay it, without Python in between; the same numbers",
    )  # fmt: skip
    training.add_argument(
        "--on-nan", type=one_of(ON_NAN), metavar="NAME",
        help="when a loss or gradient is NaN or infinite: raise (fail; default), skip (leave that\n"
        "update out), stop (end in good order); the weights are never touched by it",
    )  # fmt: skip
    training.add_argument(
        "--detect-anomaly", action="store_true",
        help="fail at the first NaN or infinity, and name op, layer and step that made it;\n"
        "slower: every op's result is looked at",
    )  # fmt: skip
    training.add_argument(
        "--seed", type=whole_number(0), metavar="N",
        help=f"of the initial weights and the order of the samples (default: {default.seed}); "
        "the same seed gives the same numbers",
    )  # fmt: skip


def _add_run(run: argparse._ArgumentGroup, default: "TrainOptions") -> None:
    run.add_argument(
        "--device", metavar="NAME",
        help="auto, cpu, cuda, cuda:N, fake, fake:N (default: what XBACKPROP_DEVICE says, or auto)",
    )  # fmt: skip
    run.add_argument(
        "--precision", type=one_of(PRECISIONS), metavar="NAME",
        help="float32 (default), bfloat16, float16 (with loss scaling), or tf32 (on GPUs)",
    )  # fmt: skip
    run.add_argument(
        "--out", metavar="FOLDER",
        help="the run folder (default: runs/ and the name of the data, numbered when taken)",
    )  # fmt: skip
    run.add_argument(
        "--resume", metavar="FOLDER",
        help="go on with the run of this folder; --epochs N makes it longer where the learning\n"
        "rate is constant, --data FILE says where its file is now",
    )  # fmt: skip
    run.add_argument(
        "--keep", type=whole_number(1), metavar="K",
        help=f"checkpoints to keep, beside the best one (default: {default.keep})",
    )  # fmt: skip
    run.add_argument(
        "--save-every", type=whole_number(1), metavar="N",
        help=f"epochs between checkpoints (default: {default.save_every})",
    )  # fmt: skip
    run.add_argument(
        "--save-steps", type=whole_number(1), metavar="N",
        help="write one every N steps as well (default: at the ends of epochs only)",
    )  # fmt: skip


def _add_records(run: argparse._ArgumentGroup) -> None:
    run.add_argument(
        "--record-statistics", type=whole_number(1), nargs="?", const=RECORD_EVERY, metavar="N",
        help="keep norms and histograms of every layer's outputs, gradients and updates, at the\n"
        f"first update and every N-th (N left out: {RECORD_EVERY}), and what each epoch moves to\n"
        "a device and back, for `xbackprop report` (default: nothing is kept)",
    )  # fmt: skip
    run.add_argument(
        "--tensorboard", action="store_true",
        help="write event files of TensorBoard into the run folder (extra tensorboard): losses,\n"
        "accuracies, the learning rate, and what --record-statistics keeps",
    )  # fmt: skip


def _add_text_options(text: argparse._ArgumentGroup) -> None:
    text.add_argument(
        "--preset", type=one_of(tuple(PRESETS)), metavar="NAME",
        help=f"sizes of the network: {', '.join(PRESETS)} (default: nano)",
    )  # fmt: skip
    for name, what in (
        ("layers", "blocks"),
        ("heads", "heads of attention, which divide the width"),
        ("width", "features of a token"),
        ("context", "tokens that it sees at a time"),
    ):
        text.add_argument(
            f"--{name}", type=whole_number(1), metavar="N",
            help=f"{what} (default: the preset's; nano {PRESETS['nano'][name]})",
        )  # fmt: skip
    text.add_argument(
        "--tokens", type=one_of(TOKENS), metavar="NAME",
        help="char, one for each character (default), or bpe, byte pairs that are often together",
    )  # fmt: skip
    text.add_argument(
        "--vocab-size", type=whole_number(256), metavar="N", help="of bpe (default: 512)"
    )
    text.add_argument(
        "--sample-every", type=whole_number(1), metavar="N",
        help="updates between texts that are printed (default: 500)",
    )  # fmt: skip
    text.add_argument(
        "--prompt", metavar="TEXT", help="what these texts begin with (default: an empty line)"
    )


def _listed(model: str, option: str) -> str:
    value = MODELS[model][option]
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _defaults(option: str) -> str:
    return "; ".join(f"{model} {settings[option]}" for model, settings in MODELS.items())
