"""`python packages.py FOLDER`: install each package there as a user does, where nothing else is, and use it."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import venv
from importlib.metadata import Distribution, distributions
from pathlib import Path

#: Stores and reads a result on a new file, as the first page of the documentation does, and names what is loaded.
PROGRAM = """
import sys
from celery import Celery
app = Celery("shop", broker="memory://")
app.conf.result_backend = "sql+sqlite:///results.sqlite"
app.backend.store_result("t", {"total": 3}, "SUCCESS")
print(app.AsyncResult("t").get(timeout=10)["total"], "rich" in sys.modules)
"""
#: A link of the README that is no address.
RELATIVE = re.compile(r"\]\((?!https?://|#)[^)]*\)")


def main() -> int:
    """Try each package; the status is 1 if one is not as it should be."""
    packages = sorted(Path(sys.argv[1]).resolve().glob("celery_sql_results-*"))
    kinds = [package.name.rpartition(".")[2] for package in packages]
    faults = [f"{package.name}: {fault}" for package in packages for fault in tried(package)]
    if sorted(kinds) != ["gz", "whl"]:
        faults.append(f"there are {kinds}, not a wheel and a source distribution")
    print("\n".join(faults or [f"{package.name} works" for package in packages]))
    return bool(faults)


def tried(package: Path) -> list[str]:
    """What is wrong with a package."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        venv.create(place / "venv", with_pip=True)
        python = place / "venv" / "bin" / "python"
        subprocess.run([python, "-m", "pip", "install", "--quiet", package], check=True, cwd=place)
        command = [python, "-I", "-W", "error", "-c", PROGRAM]
        ended = subprocess.run(command, check=False, cwd=place, capture_output=True, text=True)
        faults = [] if (ended.stdout, ended.stderr) == ("3 False\n", "") else [ended.stdout + ended.stderr]
        [site] = (place / "venv" / "lib").glob("python*/site-packages")
        [found] = [found for found in distributions(path=[str(site)]) if found.name == "celery-sql-results"]
        return [*faults, *faults_of(found)]


def faults_of(found: Distribution) -> list[str]:
    """What is wrong with what a package says of itself, and holds."""
    said, files = found.metadata, {str(file) for file in found.files or ()}
    links = RELATIVE.findall(str(said.get_payload() or said["Description"]))
    needed = {f"celery_sql_results/{name}" for name in ("py.typed", "schema/migrations/versions/0001_tables.py")}
    faults = [f"{name} is not in it" for name in sorted(needed - files)]
    faults += [f"a link of the README leads nowhere: {link}" for link in links]
    if not said.get_all("Project-URL"):
        faults.append("it names no URL of the project")
    return faults


if __name__ == "__main__":
    sys.exit(main())
