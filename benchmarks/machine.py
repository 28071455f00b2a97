"""What a run was measured on: the machine and every version."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import celery_sql_results

PACKAGES = (
    *("celery", "kombu", "billiard", "SQLAlchemy", "psycopg", "psycopg-binary", "PyMySQL", "redis"),
    *("Django", "django-celery-results"),
)


def machine() -> dict[str, object]:
    """The hardware, the kernel, where the databases lie, and how busy the machine was before the run."""
    return {
        "processor": _first(r"model name\s*: (.*)", "/proc/cpuinfo") or platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(int(_first(r"MemTotal:\s*(\d+)", "/proc/meminfo") or 0) / 2**20, 1) or None,
        "kernel": f"{platform.system()} {platform.release()}",
        "file_system": _file_system(tempfile.gettempdir()),
        "load_before": [round(load, 2) for load in os.getloadavg()],
    }


def versions() -> dict[str, str]:
    """Python, ours (with the commit, where there is one) and the packages that are installed."""
    found = {"python": platform.python_version(), "celery-sql-results": celery_sql_results.__version__ + _commit()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def redis_version() -> str:
    """What redis-server says of itself."""
    program = shutil.which("redis-server")
    said = _output([program, "--version"]) if program else ""
    found = re.search(r"v=(\S+)", said)
    return str(found[1]) if found else "not installed"


def _first(pattern: str, path: str) -> str:
    try:
        found = re.search(pattern, Path(path).read_text())
    except OSError:  # not Linux
        return ""
    return str(found[1]).strip() if found else ""


def _file_system(folder: str) -> str:
    return _output(["findmnt", "--noheadings", "--output=FSTYPE", f"--target={folder}"]) or "unknown"


def _commit() -> str:
    here = ["git", "-C", str(Path(__file__).parent)]
    commit = _output([*here, "describe", "--always", "--dirty"])
    return f" ({commit})" if commit else ""


def _output(command: list[str]) -> str:
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
