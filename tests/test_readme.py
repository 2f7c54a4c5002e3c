"""README's code runs as it stands there, in both languages, on the CPU and on the stand-in GPU."""

import json
import os
import re
import shlex
import subprocess
import sys

import pytest
from readme_section import READMES

README, CHINESE = READMES
ROOT = README.parent


def blocks_of(file):
    return re.findall(r"^```(\w+)\n(.*?)^```$", file.read_text(encoding="utf-8"), re.M | re.S)


BLOCKS = blocks_of(README)
PYTHON = [code for language, code in BLOCKS if language == "python"]
PROGRAMS = [code for code in PYTHON if "def test_" not in code]
TESTS = [code for code in PYTHON if "def test_" in code]
# Those whose comments are in Chinese are other programs.
TRANSLATED = [code for language, code in blocks_of(CHINESE) if language == "python"]
TRANSLATED_PROGRAMS = [c for c in TRANSLATED if "def test_" not in c and c not in PROGRAMS]
TRANSLATED_TESTS = [c for c in TRANSLATED if "def test_" in c and c not in TESTS]


def first_definition(code):
    found = re.search(r"^(?:class|def) (\w+)|^(\w+) =", code, re.M)
    return found.group(1) or found.group(2)


@pytest.mark.parametrize("xb_device", ["cpu", "fake"], indirect=True)
@pytest.mark.parametrize("code", PROGRAMS + TRANSLATED_PROGRAMS, ids=first_definition)
def test_program_runs_unedited(xb_device, code, tmp_path):
    script = tmp_path / "readme_block.py"
    script.write_text(code, encoding="utf-8")
    run = subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        env={**os.environ, "XBACKPROP_DEVICE": str(xb_device)},
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert run.returncode == 0, run.stderr


def test_the_loop_is_about_twenty_lines():
    assert 12 <= len(PROGRAMS[0].splitlines()) <= 22
    assert len(PROGRAMS[1].splitlines()) <= 12


@pytest.mark.parametrize("code", TESTS + TRANSLATED_TESTS, ids=first_definition)
def test_pytest_example_passes_on_cpu_and_fake(pytester, code):
    pytester.makepyfile(code)
    result = pytester.runpytest_subprocess("-v", "--xb-devices", "cpu,fake", *plugin_arguments())
    result.assert_outcomes(passed=2)


@pytest.mark.parametrize(
    ("faulty", "line"),
    [
        ("    np.asarray(x)\n", "np.asarray(x)"),
        ("    float(x.sum())\n", "float(x.sum())"),
        ("    x + np.ones(2, dtype='float32')\n", "x + np.ones"),
    ],
    ids=["asarray", "float", "mix"],
)
def test_what_readme_says_fails_on_fake_only(pytester, faulty, line):
    body = TESTS[0].replace("import pytest\n", "import numpy as np\nimport pytest\n")
    code = body.replace("    xp = xb.get", f"{faulty}    xp = xb.get")
    assert code != body
    pytester.makepyfile(code)
    result = pytester.runpytest_subprocess("-v", "--xb-devices", "cpu,fake", *plugin_arguments())
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines([f">*{line.replace('[', '[[]')}*"])


# In one process, since what they import takes seconds each time.
ONE_BY_ONE = """
import json, sys
from xbackprop.cli.main import main
for program, *words in json.loads(sys.argv[1]):
    if program == "python":
        exec(words[1])
    elif main(words) != 0:
        sys.exit(" ".join(words))
"""


def test_commands_of_the_table_run_one_after_the_other(tmp_path):
    for package in ("pandas", "sklearn", "onnx"):
        pytest.importorskip(package)
    (console,) = [code for language, code in BLOCKS if language == "console"]
    commands = [line.removeprefix("$ ") for line in console.splitlines()]
    assert len(commands) == 6
    words = [shlex.split(command) for command in commands]
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", ONE_BY_ONE, json.dumps(words)],
        env={**os.environ, "XBACKPROP_DEVICE": "cpu"},
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert (run.returncode, run.stderr) == (0, ""), run.stdout
    assert len((tmp_path / "predictions.csv").read_text(encoding="utf-8").splitlines()) == 151
    assert (tmp_path / "runs" / "flowers" / "model.onnx").exists()


@pytest.mark.parametrize("file", READMES, ids=lambda file: file.name)
def test_exactly_two_set_up_commands(file):
    shell = [code.strip() for language, code in blocks_of(file) if language == "sh"]
    start = "python3 -m venv .venv && . .venv/bin/activate && pip install 'nox[uv]' && nox -s "
    assert shell == [start + "demo", start + "tests"]


@pytest.mark.parametrize("file", READMES, ids=lambda file: file.name)
def test_pictures_and_links_exist(file):
    has_sources = (ROOT / "xbackprop").exists()  # else an installed copy is tested
    for target in links_of(file):
        if target.is_relative_to(ROOT / "xbackprop") and not has_sources:
            continue
        assert target.exists(), target


def links_of(file):
    text = file.read_text(encoding="utf-8")
    return [(file.parent / target).resolve() for target in re.findall(r"\]\(([^)#]+)\)", text)]


def test_both_languages_say_the_same():
    """Heading by heading: levels, pictures, links, tables that scripts make, and the code."""
    english, chinese = map(parts_of, READMES)
    assert [part["level"] for part in english] == [part["level"] for part in chinese]
    for here, there in zip(english, chinese, strict=True):
        assert here == there, here["code"]
    assert any(re.search(r"[\u4e00-\u9fff]", code) for code in TRANSLATED_PROGRAMS)


def parts_of(file):
    """Return what does not depend on the language below each heading."""
    text = re.sub(r"^```(\w+)\n(.*?)^```$", keep_code, file.read_text(encoding="utf-8"),
                  flags=re.M | re.S)  # fmt: skip
    found = []
    for level, body in re.findall(r"^(#+) .*?\n(.*?)(?=^#+ |\Z)", text, re.M | re.S):
        targets = re.findall(r"\]\(([^)#]+)\)", body)
        links = {(file.parent / target).resolve() for target in targets} - set(READMES)
        found.append({
            "level": len(level),
            "links": links,
            "generated": re.findall(r"<!-- \w+: made.*?: end -->", body, re.S),
            "rows": len(re.findall(r"^\|", body, re.M)),
            "code": re.findall(r"<code>(.*?)</code>", body, re.S),
            "names": set(re.findall(r"(?<!`)`([\w.]*[._]\w*)[(`]", body)),
            "options": set(re.findall(r"--[a-z]+[\w-]*", body)),
        })  # fmt: skip
    return found


def keep_code(found):
    """Return a block of code without its comments, whose `#` would be a heading."""
    code = re.sub(r"(  |^)# .*", "", found.group(2), flags=re.M)
    return f"<code>{code}</code>"


def plugin_arguments():
    """Load the plugin by name where the package is not installed, and so has no entry point."""
    from importlib.metadata import entry_points

    installed = any(e.name == "xbackprop" for e in entry_points(group="pytest11"))
    return () if installed else ("-p", "xbackprop.pytest_plugin")
