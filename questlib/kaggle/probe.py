"""What is run in a session to look at the library alone; nothing of this imports questlib from this machine."""

import importlib
import shutil
import sys
import zipfile
from pathlib import Path

mount = Path("/kaggle/input")
[wheel] = [path for at in ("*", "datasets/*/*") for path in mount.glob(f"{at}/questlib-*.whl")]
with zipfile.ZipFile(wheel) as archive:
    modules = sorted(name.removesuffix(".py").replace("/", ".") for name in archive.namelist() if name.endswith(".py"))
# Without commands, which start at home only; a package's own module comes with those in it.
modules = [name for name in modules if not name.endswith(("__init__", "__main__"))]
sys.path.insert(0, str(wheel))  # on a mount that is read-only, and nothing is installed
for name in modules:
    importlib.import_module(name)

import torch  # noqa: E402

from questlib.devices import pick_device  # noqa: E402

torch.cuda.device_count = lambda: 2
assert pick_device().type == "cpu", "GPUs that do not compute were chosen"
shutil.copyfile("/proc/self/cmdline", "/kaggle/working/probed")
