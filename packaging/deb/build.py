"""Build spark-agent_VERSION_all.deb, in dist/ or the folder that is named: ``make deb``. No network, no root.

The package carries this code and the pure-Python packages that it runs with in the environment that builds it, in
/usr/lib/spark-agent; what is compiled comes from the distribution. One commit and one environment make one file,
byte for byte.
"""

import gzip
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from email.utils import formatdate
from importlib.metadata import Distribution
from pathlib import Path
from typing import Final

from spark_agent.agent import __version__
from spark_agent.agent.service import CODE, DISTRIBUTION, code_files, runtime_packages

HERE: Final = Path(__file__).parent
REPO: Final = HERE.parents[1]
NAME: Final = "spark-agent"
MAINTAINER: Final = "spark-agent developers <spark-agent@localhost>"
#: Where compiled packages come from; Debian 12 has psutil 5.9.4, bcrypt 3.2.2 and PyYAML 6.0.
COMPILED: Final = {
    "psutil": "python3-psutil (>= 5.9)",
    "bcrypt": "python3-bcrypt (>= 3.2)",
    "pyyaml": "python3-yaml (>= 6.0)",
}
#: Compiled, and in no distribution: `spark-agent audit` says what it needs, all else goes without.
LEFT_OUT: Final = {"promql-parser"}
#: pyudev loads libudev.so.1; py3compile is python3-minimal's, which python3 brings.
DEPENDS: Final = ("python3 (>= 3.11)", *COMPILED.values(), "libudev1", "init-system-helpers (>= 1.54)")
LICENCE_NAMES: Final = ("LICENSE", "LICENCE", "COPYING", "NOTICE", "AUTHORS")


def build(out: Path) -> Path:
    """Build the package into a folder, and return where it is."""
    epoch = int(os.environ.get("SOURCE_DATE_EPOCH") or _git("log", "-1", "--format=%ct") or 0)
    others = {*COMPILED, *LEFT_OUT, DISTRIBUTION}
    vendored = [package for package in runtime_packages() if package.name.lower().replace("_", "-") not in others]
    out.mkdir(parents=True, exist_ok=True)
    built = out / f"{NAME}_{__version__}_all.deb"
    with tempfile.TemporaryDirectory() as folder:
        stage = Path(folder)
        _stage_code(stage)
        for package in vendored:
            _stage_package(stage, package)
        _stage_system(stage)
        _stage_documentation(stage, vendored, epoch)
        _stage_control(stage)
        _normalize(stage, epoch)
        subprocess.run(
            ["dpkg-deb", "--root-owner-group", "-Zxz", "--build", stage, built],
            check=True,
            stdout=subprocess.DEVNULL,
            env=os.environ | {"SOURCE_DATE_EPOCH": str(epoch)},
        )
    return built


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=REPO, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def _put(path: Path, text: str, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)


def _copy(source: Path, target: Path, mode: int = 0o644) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(mode)


def _stage_code(stage: Path) -> None:
    for name in code_files():
        if name.parts[0] != "systemd":
            _copy(CODE / name, stage / "usr/lib/spark-agent/spark_agent" / name)


def _stage_package(stage: Path, package: Distribution) -> None:
    """Put a package that this code runs with beside it; its licences go to the documentation."""
    for name in package.files or ():
        source = Path(str(package.locate_file(name)))
        if name.suffix == ".so":
            raise SystemExit(f"{package.name} is compiled ({name}): name the distribution's package in COMPILED")
        if _is_licence(name.name):
            _copy(source, stage / "usr/share/doc" / NAME / "licenses" / package.name / name.name)
        elif ".." not in name.parts and "__pycache__" not in name.parts and ".dist-info" not in name.parts[0]:
            _copy(source, stage / "usr/lib/spark-agent" / name)


def _is_licence(name: str) -> bool:
    return name.upper().startswith(LICENCE_NAMES) and not name.endswith(".py")


def _stage_system(stage: Path) -> None:
    for unit in sorted((REPO / "systemd").glob("spark-agent.*")):
        _copy(unit, stage / "usr/lib/systemd/system" / unit.name)
    _copy(HERE / "spark-agent", stage / "usr/bin/spark-agent", 0o755)
    _copy(HERE / "rtupdate", stage / "usr/share/python3/runtime.d/spark-agent.rtupdate", 0o755)
    _copy(HERE / "default", stage / "etc/default/spark-agent")
    (stage / "etc/spark-agent").mkdir()


def _stage_documentation(stage: Path, vendored: list[Distribution], epoch: int) -> None:
    folder = stage / "usr/share/doc" / NAME
    for page in ("README.md", "CHANGELOG.md", *sorted(f"docs/{path.name}" for path in (REPO / "docs").iterdir())):
        if (REPO / page).is_file():
            _copy(REPO / page, folder / page)
    entry = (
        f"{NAME} ({__version__}) unstable; urgency=medium\n\n  * CHANGELOG.md, beside this file, has what changed.\n\n"
        f" -- {MAINTAINER}  {formatdate(epoch)}\n"
    )
    (folder / "changelog.gz").write_bytes(gzip.compress(entry.encode(), mtime=0))
    _put(folder / "copyright", copyright_text(vendored))


def copyright_text(vendored: list[Distribution]) -> str:
    """Return the package's copyright file: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/."""
    paragraphs = [
        "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\nUpstream-Name: spark-agent",
        f"Files: *\nCopyright: the spark-agent developers\nLicense: Apache-2.0\n{_licence_note(None)}",
    ]
    for package in vendored:
        tops = sorted({name.parts[0] for name in package.files or () if name.parts[0] not in {"..", "__pycache__"}})
        files = " ".join(f"usr/lib/spark-agent/{top}*" for top in tops if ".dist-info" not in top)
        authors = _field(package, "Author") or _field(package, "Author-email") or f"the authors of {package.name}"
        paragraphs.append(
            f"Files: {files}\nCopyright: {authors}\nLicense: {licence(package)}\n{_licence_note(package)}"
        )
    return "\n\n".join(paragraphs) + "\n"


def _licence_note(package: Distribution | None) -> str:
    if package is None:
        return " On Debian systems the full text is in /usr/share/common-licenses/Apache-2.0."
    has_file = any(_is_licence(name.name) for name in package.files or ())
    where = f"/usr/share/doc/{NAME}/licenses/{package.name}/" if has_file else "the head of its files"
    return f" {package.name} {package.version}; its text is in {where}."


def licence(package: Distribution) -> str:
    """Return the licence that a package names; each generation of metadata has another place for it."""
    classifiers = [
        line.rpartition(" :: ")[2]
        for line in package.metadata.get_all("Classifier") or ()
        if line.startswith("License ::")
    ]
    named = _field(package, "License-Expression") or "".join(classifiers[:1]) or _field(package, "License")
    if not named:
        raise SystemExit(f"{package.name} names no licence: look at it before it ships")
    name = named.splitlines()[0]
    return {"MIT License": "Expat", "BSD License": "BSD-3-Clause"}.get(name, name)


def _field(package: Distribution, name: str) -> str:
    return str((package.metadata.get_all(name) or [""])[0])


def _stage_control(stage: Path) -> None:
    control = stage / "DEBIAN"
    files = sorted(path for path in stage.rglob("*") if path.is_file())
    kibibytes = sum(-(-path.stat().st_size // 1024) for path in files)
    _put(
        control / "control",
        f"Package: {NAME}\nVersion: {__version__}\nArchitecture: all\nMaintainer: {MAINTAINER}\n"
        f"Installed-Size: {kibibytes}\nDepends: {', '.join(DEPENDS)}\nSuggests: prometheus, prometheus-node-exporter\n"
        "Section: admin\nPriority: optional\n"
        "Description: inventory and power of the NVIDIA DGX Spark (GB10), for Prometheus\n"
        " Says what the whole box is, what it draws and how that number is known, on the\n"
        " screen, as JSON and to Prometheus. Measured and estimated power, and the power of\n"
        " the GPU and of the box, are never taken for one another.\n",
    )
    _put(control / "conffiles", "".join(f"/{path.relative_to(stage)}\n" for path in files if "etc" in path.parts))
    sums = (
        f"{hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()}  {path.relative_to(stage)}\n"
        for path in files
    )
    _put(control / "md5sums", "".join(sums))
    for script in ("postinst", "prerm", "postrm"):
        _copy(HERE / script, control / script, 0o755)


def _normalize(stage: Path, epoch: int) -> None:
    """Take out of the files what depends on who builds, and when."""
    for path in (stage, *stage.rglob("*")):
        path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        os.utime(path, (epoch, epoch))


if __name__ == "__main__":
    sys.stdout.write(f"{build(Path(sys.argv[1]) if sys.argv[1:] else REPO / 'dist')}\n")
