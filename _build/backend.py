"""setuptools' build backend, plus the two boot files at the root of every wheel.

``spr_plugin.pth`` (Python up to 3.17) and ``spr_plugin.start`` (PEP 829) must lie in site-packages itself. setuptools has no option
for that which holds in wheels *and* editable installs, so both kinds of wheel get them here after they were built. They stand in
RECORD like every file, hence ``pip uninstall`` removes them.
"""

import base64
import hashlib
import zipfile
from pathlib import Path

from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F403  (the hooks that stay as they are)

BOOT_FILES = ("spr_plugin.pth", "spr_plugin.start")
HERE = Path(__file__).parent


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    """PEP 517: a wheel with the boot files."""
    name = build_meta.build_wheel(wheel_directory, config_settings, metadata_directory)
    add_boot_files(Path(wheel_directory, name))
    return name


def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    """PEP 660: an editable wheel with the boot files."""
    name = build_meta.build_editable(wheel_directory, config_settings, metadata_directory)
    add_boot_files(Path(wheel_directory, name))
    return name


def add_boot_files(wheel: Path) -> None:
    """Rewrite ``wheel`` with the boot files at its root and in its RECORD."""
    boot = {name: (HERE / name).read_bytes() for name in BOOT_FILES}
    with zipfile.ZipFile(wheel) as archive:
        members = [(info, archive.read(info)) for info in archive.infolist()]
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in boot.items():
            archive.writestr(name, content)
        for info, content in members:
            if info.filename.endswith(".dist-info/RECORD"):
                content = "".join(record_line(*item) for item in boot.items()).encode() + content
            archive.writestr(info, content)


def record_line(name: str, content: bytes) -> str:
    """One line of a wheel's RECORD: path, hash, size."""
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    return f"{name},sha256={digest},{len(content)}\n"
