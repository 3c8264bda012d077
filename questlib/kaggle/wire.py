"""A push of the real client to the server on this machine, in a namespace of its own: what arrives is what is run."""

import json
import os
import sys
import tempfile
from pathlib import Path

from questlib.kaggle.client import run_client
from questlib.kaggle.kernels import KERNEL_METADATA
from questlib.kaggle.loopback import REPLIES, serve
from questlib.kaggle.push import push, read_back
from questlib.run_folder import read_json

_PATIENCE = 60.0


def main() -> int:
    """Push BUNDLE KERNEL into FOLDER, then against every refusal that the client reports with status 0.

    Returns:
        0; what was seen is the last line of standard output.
    """
    bundle, kernel, folder = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    owner = read_json(bundle / kernel / KERNEL_METADATA)["id"].split("/")[0]
    with tempfile.TemporaryDirectory() as home:
        os.environ.update(HOME=home, KAGGLE_API_ENVIRONMENT="LOCALHOST", KAGGLE_USERNAME=owner, KAGGLE_KEY="rehearsal")
        for name in ("KAGGLE_API_TOKEN", "KAGGLE_CONFIG_DIR"):
            os.environ.pop(name, None)
        with serve(folder) as server:
            version = run_client("--version").strip()
            push(bundle, kernel=kernel, patience=_PATIENCE)
            read_back(bundle, kernel=kernel)
            [saved] = [one for one in server.read_requests() if one["call"] == "SaveKernel"]
        refusals = {}
        for name in REPLIES.keys() - {"models"}:  # those are not printed: reading back tells, if any is attached
            with serve(folder, refusal=name):
                try:
                    push(bundle, kernel=kernel, patience=_PATIENCE)
                    refusals[name] = ""
                except RuntimeError as error:
                    refusals[name] = str(error)
    body = {key: value for key, value in saved["body"].items() if key != "text"}
    sys.stdout.write(
        json.dumps({"client": version, "bytes": saved["bytes"], "body": body, "refusals": refusals}) + "\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
