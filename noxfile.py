"""The project's commands: ``nox --list`` names them, ``nox -s <name>`` runs one.

Every session builds its own environment with the Python that runs nox, and installs the package
from this folder as a user would get it.
"""

import os
import shutil
import tarfile
import zipfile
from pathlib import Path

import nox

nox.needs_version = ">=2025.10.14"  # the first with download_python
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.download_python = "never"
nox.options.sessions = ["lint", "types", "contracts", "tests"]

PROJECT = nox.project.load_toml("pyproject.toml")
# The suite in as many processes as there are cores, up to eight, each with a block of neighbouring
# tests; who is done takes half of another's. pytest without these runs it in one process.
PARALLEL = ("-n", "auto", "--maxprocesses", "8", "--dist", "worksteal")
# A product of matrices in one thread: those of several processes would wait for each other's cores.
ONE_THREAD = {"OPENBLAS_NUM_THREADS": os.environ.get("OPENBLAS_NUM_THREADS", "1")}
TORCH = "torch==2.13.0"  # what names, layouts and numbers are compared with

# NVRTC, and CuPy, which calls it here as on a GPU: registers differ between releases of NVRTC.
CUDA_COMPILERS = ("cupy-cuda13x==14.*", "nvidia-cuda-nvrtc==13.0.*", "ml_dtypes>=0.4")

# pip as the installer: machines that keep PyTorch's large wheel in a folder tell pip about it, and
# uv does not read pip's settings. Kept between runs, because PyTorch takes minutes to install.
torch_session = nox.session(venv_backend="virtualenv", reuse_venv=True)


def group(name: str) -> tuple[str, ...]:
    """Return the requirements of a dependency group of pyproject.toml."""
    return nox.project.dependency_groups(PROJECT, name)


@nox.session
def demo(session: nox.Session) -> None:
    """Train the classifier of handwritten digits; arguments go to `xbackprop train`."""
    session.install(".[cli]")
    session.run("xbackprop", "train", *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """Run doctests and tests on cpu and the stand-in GPU; with arguments, `pytest` with them.

    Without arguments on all cores; `nox -s tests -- -n 0` is the suite in one process.
    """
    session.install(".[cli]", *group("test"))
    if session.posargs:
        session.run("pytest", *session.posargs)
        return
    try:
        # --pyargs: the installed package, not the folder of the same name.
        session.run("pytest", "--doctest-modules", "--pyargs", "xbackprop")
    finally:
        session.run("pytest", *PARALLEL, env=ONE_THREAD)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, format and docstrings; `-- --fix` mends what can be mended."""
    session.install(*group("lint"))
    if session.posargs == ["--fix"]:
        session.run("ruff", "check", "--fix", ".")
        session.run("ruff", "format", ".")
    else:
        session.run("ruff", "check", ".")
        session.run("ruff", "format", "--check", ".")
    sources = sorted(str(path) for path in Path("xbackprop").rglob("*.py"))
    session.run("numpydoc", "lint", *sources)
    session.run("pre-commit", "validate-config")


@nox.session
def types(session: nox.Session) -> None:
    """Check the type annotations of the package."""
    session.install(".[cli]", *group("lint"), *group("test"))
    session.run("mypy", *session.posargs)


@nox.session
def contracts(session: nox.Session) -> None:
    """Check that imports between the parts of the package go one way."""
    session.install(*group("lint"))
    session.run("lint-imports", "--no-cache", *session.posargs)


@nox.session
def wheel(session: nox.Session) -> None:
    """Build the packages, check what is in them, and use the wheel without any extra."""
    session.install("build")
    folder = Path(session.create_tmp())
    for old in folder.glob("xbackprop-*"):
        old.unlink()
    session.run("python", "-m", "build", "--outdir", str(folder), silent=True)

    (built,) = folder.glob("*.whl")
    with zipfile.ZipFile(built) as archive:
        missing = package_files() - set(archive.namelist())
    if missing:
        session.error(f"{built.name} lacks {', '.join(sorted(missing))}")
    (source,) = folder.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        if not any("/tests/test_" in name for name in archive.getnames()):
            session.error(f"{source.name} lacks the tests")

    session.install(str(built))
    session.chdir(folder)  # away from the sources, so that the wheel is what gets imported
    session.run("python", "-c", "import xbackprop; print(xbackprop.__version__)")
    session.run("xbackprop", "--help", silent=True)


def package_files() -> set[str]:
    """Return the files of the package, as a wheel should name them."""
    return {
        path.as_posix()
        for path in Path("xbackprop").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith(".")
    }


@nox.session
def gpu_less_cupy(session: nox.Session) -> None:
    """Check the stand-in and the probe against a real CuPy, on a machine without a GPU."""
    session.install(".[cli]", "cupy-cuda12x>=14", *group("test"))
    targets = ["tests/gpu_less", "tests/test_cupy_surface.py", "tests/test_probe.py"]
    session.run("pytest", *(session.posargs or targets))


@nox.session
def cuda_compile(session: nox.Session) -> None:
    """Compile every CUDA kernel for every architecture, and hold its registers against a table.

    Without a driver and without the CUDA toolkit. `-- --write` writes the table.
    """
    session.install(".", *CUDA_COMPILERS)
    session.run("python", "-m", "cuda_compile", *session.posargs, env={"PYTHONPATH": "tests"})


@nox.session
def browser(session: nox.Session) -> None:
    """Open the explanation's page in Chromium, and take README's picture of it.

    Needs a Chromium and its driver; on Debian: apt install chromium chromium-driver.
    """
    absent = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    if absent:  # pytest alone skips these tests then
        session.error(f"{' and '.join(absent)} not found: apt install chromium chromium-driver")
    session.install(".[explain]", "selenium>=4.20", *group("test"))
    session.run("pytest", *(session.posargs or ["tests/browser"]))
    if not session.posargs:
        out = str(Path(".github", "explain.png"))
        session.run("python", "-m", "browser.screenshot", "--out", out, env={"PYTHONPATH": "tests"})


@torch_session
def torch_parity(session: nox.Session) -> None:
    """Compare every layer, loss, optimizer and schedule with PyTorch, and count by module.

    A whole run writes the figures that README quotes.
    """
    session.install(".[cli]", TORCH, *group("test"))
    session.run("python", "-c", "import torch; print('PyTorch', torch.__version__)")
    # Without PyTorch the comparisons are skipped; here that is a failure.
    env = {"XBACKPROP_TEST_REQUIRE": "torch"}
    counts = os.path.join("tests", "parity", "counts.json")
    arguments = session.posargs or ["--parity-counts", counts]
    session.run("pytest", "-m", "torch_parity", *arguments, env=env)
    if not session.posargs:
        session.run("python", "-m", "parity.table", env={"PYTHONPATH": "tests"})


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation, the catalogue included; a warning is an error."""
    session.install(".", *group("docs"))
    folder = Path(session.create_tmp())
    source, html = folder / "source", folder / "html"
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(Path("xbackprop", "docs"), source)
    shutil.copytree(Path("xbackprop", "examples"), source / "examples")
    env = {"PYTHONPATH": "tests"}  # the tables of cases, for shapes and examples
    session.run("python", "-m", "xbackprop.docs.catalogue", str(source / "catalogue"), env=env)
    options = ["-b", "html", "--fail-on-warning", "--keep-going", "--nitpicky", "--fresh-env"]
    session.run("sphinx-build", "--quiet", *options, str(source), str(html), env=env)
    session.log(f"open {html / 'index.html'}")


@nox.session
def reliability(session: nox.Session) -> None:
    """Kill, damage and wear out for up to 30 minutes a part: crash, files, soak; resumable.

    Writes the figures that README quotes. `-- crash` runs one part.
    """
    session.install(".[cli]", "pip", *group("test"))  # pip: soak installs a read-only copy
    results = Path("tests", "reliability", "results")
    env = {"PYTHONPATH": "tests"}
    for part in session.posargs or ("crash", "files", "soak"):
        out = str(results / f"{part}.json")
        session.run("python", "-m", f"reliability.{part}", "--out", out, env=env)
    session.run("python", "-m", "reliability.table", env=env)


@torch_session
def accuracy(session: nox.Session) -> None:
    """Train on well-known data, `-- images` from the command line, `-- gpt` beside PyTorch.

    `-- estimators` trains beside scikit-learn, and on MNIST-1D. Writes the figures that README
    quotes.
    """
    session.install(".[cli,mnist,sklearn]", TORCH, "mnist1d")
    results = Path("tests", "accuracy", "results")
    env = {"PYTHONPATH": "tests"}
    for part in session.posargs or ("images", "gpt", "estimators"):
        picture = ["--picture", str(Path(".github", "gpt.png"))] if part == "gpt" else []
        out = str(results / f"{part}.json")
        session.run("python", "-m", f"accuracy.{part}", "--out", out, *picture, env=env)
    session.run("python", "-m", "accuracy.table", env=env)


@torch_session
def bench(session: nox.Session) -> None:
    """Time every workload beside its peers, or those named: `nox -s bench -- w2_mlp`.

    Takes half an hour on an idle machine; writes the tables of benchmarks/README.md.
    """
    peers = ("jax", "optax", "scikit-learn", "thinc")
    session.install(".[cli,fast]", TORCH, *peers)
    folder = Path("benchmarks")
    scripts = session.posargs or sorted(path.stem for path in folder.glob("w[0-9]*.py"))
    for name in scripts:
        session.run("python", str(folder / f"{name}.py"), "--out", str(folder / "results"))
    session.run("python", str(folder / "table.py"), env={"PYTHONPATH": "tests"})
