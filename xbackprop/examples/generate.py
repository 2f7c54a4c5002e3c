"""Text from a GPT that ``xbackprop train --model gpt`` trained.

Run: python -m xbackprop.examples.generate runs/shakespeare --prompt "ROMEO:"
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import xbackprop as xb
from xbackprop.cli.devices import choose_device
from xbackprop.cli.errors import CommandError
from xbackprop.cli.parser import LineParser, number_from_zero, positive_number, whole_number
from xbackprop.cli.samples import encode_prompt
from xbackprop.data import DataError, tokenizer_from_config
from xbackprop.training import CheckpointError


def read_arguments(words: Sequence[str]) -> dict[str, Any]:
    """Read the command line: a model, and how to draw from it."""
    parser = LineParser(
        "python -m xbackprop.examples.generate",
        "Let a language model go on from a prompt.",
    )
    parser.add_argument(
        "--prompt", metavar="TEXT", help="what the text begins with (default: an empty line)"
    )
    parser.add_argument(
        "--length", type=whole_number(1), metavar="N", help="tokens to draw (default: 300)"
    )
    parser.add_argument(
        "--temperature", type=number_from_zero, metavar="X",
        help="below 1 the likely becomes more likely; 0 takes the likeliest (default: 0.8)",
    )  # fmt: skip
    parser.add_argument(
        "--top-k", type=whole_number(1), metavar="K", help="draw from the K likeliest tokens only"
    )
    parser.add_argument(
        "--top-p", type=positive_number, metavar="P",
        help="draw from the likeliest tokens only whose probabilities together reach P",
    )  # fmt: skip
    parser.add_argument(
        "--seed", type=whole_number(0), metavar="N", help="of the draws (default: 0)"
    )
    parser.add_argument("--device", metavar="NAME", help="auto, cpu, cuda, cuda:N, fake, fake:N")
    parser.add_argument("model", metavar="MODEL", help="a run folder, or a model.safetensors")
    defaults = {"prompt": None, "length": 300, "temperature": 0.8, "seed": 0, "device": None}
    return {**defaults, "top_k": None, "top_p": None, **vars(parser.read(words))}


def load(path: str, device: str | None) -> tuple[Any, Any]:
    """Return model and tokenizer of a run."""
    file = Path(path) / "model.safetensors" if Path(path).is_dir() else Path(path)
    try:
        loaded = xb.load(file, device=choose_device(device).device)
    except (CheckpointError, OSError) as error:
        raise CommandError(f"MODEL: {error}") from error
    config = loaded.counters.get("tokenizer")
    if not isinstance(loaded.model, xb.nn.GPT) or config is None:
        raise CommandError(f"MODEL: {file}: holds no language model and its tokens")
    return loaded.model, tokenizer_from_config(config)


def main(words: Sequence[str] | None = None) -> int:
    """Print a prompt and what a model makes of it, token by token."""
    try:
        given = read_arguments(sys.argv[1:] if words is None else words)
        model, tokenizer = load(given["model"], given["device"])
        drawing = {name: given[name] for name in ("temperature", "top_k", "top_p")}
        try:
            ids = encode_prompt(tokenizer, given["prompt"]).tolist()
            tokens = model.generate(ids, given["length"], rng=given["seed"], **drawing)
            shown = tokenizer.decode(ids)
            print(shown, end="", flush=True)
            for token in tokens:
                ids.append(token)
                # A character may be spread over tokens: half of one waits for the rest.
                text = tokenizer.decode(ids)
                if not text.endswith("\ufffd"):
                    print(text[len(shown) :], end="", flush=True)
                    shown = text
        except (ValueError, DataError) as error:
            raise CommandError(str(error)) from error
        print()
    except CommandError as error:
        print(f"generate: error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
