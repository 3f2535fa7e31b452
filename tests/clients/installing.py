"""Installs the clients, in pinned versions, under target/."""

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from servers import TARGET, find, read

HERE = Path(__file__).resolve().parent
CACHE = TARGET / "clients"


def install(folder, runtime, script):
    """Installs the client, unless that was done before, and returns the command that runs its script."""
    if runtime == "python":
        for tool in ("redis-cli", "redis-benchmark"):
            find(tool, "Debian: redis-tools, Fedora: redis, macOS: brew install redis")
        return [sys.executable, HERE / folder / f"{script}.py"]
    if runtime == "ruby":
        return [install_ruby(), HERE / folder / f"{script}.rb"]
    if runtime == "node":
        return [find("node", "version 20 or newer"), install_node() / f"{script}.mjs"]
    return [install_python(HERE / folder / f"{runtime}.txt"), HERE / folder / f"{script}.py"]


def install_python(requirements):
    """Makes a virtual environment of these requirements, and returns its interpreter."""
    venv = CACHE / requirements.stem
    python = venv / "bin" / "python"
    with installing(venv, sys.version.encode(), requirements) as needed:
        if needed:
            subprocess.run([sys.executable, "-m", "venv", venv], check=True)
            pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            subprocess.run([*pip, "--require-hashes", "--only-binary", ":all:", "-r", requirements], check=True)
    return python


def install_node():
    """Makes a folder with the packages of the lock file and the scripts, which look for packages beside themselves."""
    folder = CACHE / "node"
    npm = find("npm", "Debian: npm")
    with installing(folder, b"", HERE / "node" / "package-lock.json") as needed:
        for source in (HERE / "node").iterdir():
            shutil.copy(source, folder)
        if needed:
            command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel", "error"]
            subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return folder


def install_ruby():
    """Returns Debian's Ruby, which has Debian's version of Sidekiq, or None where it is not and cannot be installed."""

    def is_there():
        check = ["ruby", "-e", "require 'sidekiq'"]
        return shutil.which("ruby") and subprocess.run(check, stderr=subprocess.DEVNULL).returncode == 0

    if not is_there() and shutil.which("apt-get") and os.geteuid() == 0:
        environ = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
        for apt in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", "ruby-sidekiq"]):
            subprocess.run(["apt-get", *apt], env=environ, stdout=subprocess.DEVNULL)
    return shutil.which("ruby") if is_there() else None


@contextlib.contextmanager
def installing(folder, salt, *sources):
    """Yields whether the folder is to be filled, which it is, empty, unless that was done from these same sources."""
    wanted = hashlib.sha256(salt + b"".join(source.read_bytes() for source in sources)).hexdigest()
    mark = folder / ".installed"
    needed = read(mark) != wanted
    if needed:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    yield needed
    mark.write_text(wanted)
