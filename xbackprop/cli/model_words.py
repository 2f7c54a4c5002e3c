"""The words for MODEL, and its options, which answer without anything that trains."""

from xbackprop.cli.parser import LineParser, layer_widths, whole_number

WHAT_A_MODEL_IS = (
    "a run folder, a model file, one of mlp, cnn, resnet and gpt, or FILE.py:function, where the "
    "function returns a Module, or a Module and its inputs"
)
MODEL_HELP = (
    "a run folder, a model file, the name of a network (mlp, cnn, resnet, gpt), or\n"
    "FILE.py:function that returns a Module, or a tuple of a Module and its inputs"
)


def add_model_argument(
    parser: LineParser, *, is_required: bool = True, has_batch: bool = True
) -> None:
    """Add MODEL, and what its inputs are made of."""
    parser.add_argument("model", metavar="MODEL", nargs=None if is_required else "?",
                        help=MODEL_HELP)  # fmt: skip
    parser.add_argument(
        "--shape", type=layer_widths, metavar="3,32,32",
        help="of one sample (default: what the model takes)",
    )  # fmt: skip
    if has_batch:
        parser.add_argument(
            "--batch", type=whole_number(1), metavar="N", help="samples of the inputs made for it"
        )
    parser.add_argument(
        "--seed", type=whole_number(0), metavar="N", help="of weights and inputs (default: 0)"
    )
