"""The wheel, installed in an empty environment, does the main job from any folder."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # setuptools writes beside what it builds
    subprocess.run(["git", "clone", "--quiet", ROOT, source], check=True)
    run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "."], cwd=source)
    (built,) = source.glob("*.whl")
    return built


def run(command: list, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.long
def test_the_wheel_holds_every_package_and_its_data(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    tracked = run(["git", "ls-files", "contextjax", "data_pipelines", "configs", "experiments"], cwd=ROOT).splitlines()
    assert tracked and set(tracked) <= names
    assert not [name for name in names if name.startswith("tests/")]


@pytest.mark.long
def test_the_installed_command_does_the_main_job_from_another_folder(wheel, tmp_path):
    run([sys.executable, "-m", "venv", "env"], cwd=tmp_path)
    pip = [tmp_path / "env/bin/pip", "install", "--quiet", "--disable-pip-version-check"]
    run([*pip, "--constraint", ROOT / "constraints.txt", f"{wheel}[train]"], cwd=tmp_path)
    place = tmp_path / "place"
    place.mkdir()

    def contextjax(*arguments: str) -> str:
        return run([tmp_path / "env/bin/contextjax", *arguments], cwd=place)

    overview = contextjax()
    assert all(f"  {name}" in overview for name in ("train", "evaluate", "search", "serve", "export"))
    contextjax("generate", "--target=data/pictograms", "--train_groups=3", "--train_sets=0")
    contextjax("train", "--config=configs/pictograms.py:tiny", "--workdir=run")
    contextjax("evaluate", "--workdir=run")
    contextjax("report", "--workdir=run")
    gallery = place / "data/pictograms/cirr/img_raw/dev"
    picture = sorted(gallery.glob("*.png"))[0]
    answers = contextjax("search", "--workdir=run", f"--gallery={gallery}", f"--image={picture}", "--text=a dog")
    assert ".png" in answers
    assert {"system.json", "evaluation.json", "report"} <= {path.name for path in (place / "run").iterdir()}
