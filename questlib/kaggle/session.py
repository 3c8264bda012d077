"""What runs inside the sandbox: Kaggle's runner on one notebook, watched. It needs nothing but Python itself."""

import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

NOTEBOOK = "__notebook__.ipynb"
_TRACE = Path("/tmp/connects")
_VERSIONS = "import importlib.metadata as m; print(*sorted({f'{d.name}=={d.version}' for d in m.distributions()}))"


def main() -> int:
    """Run the notebook and write what was seen as the last line of standard output.

    Returns:
        The runner's exit status.
    """
    before = _versions()
    tracer = _find_tracer()
    start = time.monotonic()
    runner = [sys.executable, "-m", "papermill", NOTEBOOK, NOTEBOOK, "--no-progress-bar", "--log-output"]
    status = subprocess.run([*tracer, *runner]).returncode
    seconds = time.monotonic() - start
    after = _versions()
    seen = {
        "status": status,
        "seconds": seconds,
        "installed": sorted(after - before),
        "removed": sorted(before - after),
        "connects": _foreign_connects() if tracer else None,
    }
    sys.stdout.write("\n" + json.dumps(seen) + "\n")
    return status


def _find_tracer() -> list[str]:
    if shutil.which("strace") is None:
        return []
    tracer = ["strace", "-f", "--seccomp-bpf", "-qq", "-e", "trace=connect,sendto", "-e", "signal=none"]
    return [*tracer, "-o", str(_TRACE)]


def _versions() -> set[str]:
    done = subprocess.run([sys.executable, "-c", _VERSIONS], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def _foreign_connects() -> list[str]:
    """Calls with an address of the internet that is not this machine's own, or where a name is looked up."""
    lines = _TRACE.read_text(encoding="utf-8", errors="replace").splitlines()
    calls = [line for line in lines if "sa_family=AF_INET" in line]
    own = re.compile(r'inet_addr\("127\.|inet_pton\(AF_INET6, "(::1|::ffff:127\.)')
    foreign = [line for line in calls if not own.search(line) or "htons(53)" in line]
    return sorted({re.sub(r"^\d+\s+", "", line)[:160] for line in foreign})


if __name__ == "__main__":
    sys.exit(main())
