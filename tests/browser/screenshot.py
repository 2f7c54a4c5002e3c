"""Write the picture that README shows: the chain rule at the 2-2-1 network."""

import argparse
import contextlib
import io
import tempfile
from pathlib import Path

from browser.chromium import running
from xbackprop.cli.main import main


def take(out):
    """Write the picture."""
    page = io.StringIO()
    with contextlib.redirect_stdout(page):
        main(["explain", "--format", "html", "--lang", "en", "--device", "cpu"])
    with tempfile.TemporaryDirectory() as folder, running() as browser:
        path = Path(folder, "page.html")
        path.write_text(page.getvalue(), encoding="ascii")
        browser.open(path, 1080, 520, scale=1.5)
        while "dLoss/dw2" not in browser.status():
            browser.click("next")
        browser.run("document.activeElement.blur()")
        browser.picture(out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", required=True, help="PNG to write")
    take(parser.parse_args().out)
