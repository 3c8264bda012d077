"""The real Kaggle client, wrapped so that what it refuses is an error, in words that help.

Credentials stay where the client finds them: they are in no argument here, and no text of the client's leaves this
module before they are struck out.
"""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from questlib.cache import CACHE, find_cache


def code(number: int) -> str:
    """Make a pattern of a status of HTTP: a word of its own, for an id, a size or an address may hold its digits."""
    return rf"(?<![\w./]){number}(?![\w./])"


# The client's words, and what to do about them.
_REMEDIES = {
    r"session count": "wait until a running kernel ends, or cancel it",
    r"not valid (dataset|competition|kernel|model) sources": "attach only what exists, by owner and slug",
    r"not valid tags": "use tags that exist, or none",
    r"does not resolve": "make the title one whose slug is that of the id",
    rf"{code(409)}|Conflict": "another notebook or dataset has that slug: choose another title and id",
    rf"{code(403)}|{code(404)}|[Nn]ot found|denied": "the id must be yours: write the bundle for the OWNER whose "
    "credentials these are",
    "UnicodeDecodeError": "a file of credentials must be UTF-8, as Windows may not write it: save it anew",
    code(400): "the notebook may be too large, or a field not as the site wants it",
}
_TOKENS = "https://www.kaggle.com/settings/api"


def run_client(*arguments: str, fails: bool = False, remedies: Mapping[str, str] | None = None) -> str:
    """Run the client.

    Args:
        arguments: As on its command line.
        fails: Whether it may end with an error.
        remedies: What to do, by patterns of what it says, before those that are known here.

    Returns:
        All that it said.

    Raises:
        RuntimeError: If it ended with an error, or found no credentials.
    """
    client = Path(sys.executable).with_name("kaggle")
    if not client.is_file():
        raise RuntimeError("the kaggle client must be installed, however it is not; run `make install`")
    temporary = find_cache(CACHE) / "client"  # the client keeps uploads in one place for all users of a machine
    temporary.mkdir(exist_ok=True)
    done = subprocess.run(
        [str(client), *arguments], capture_output=True, text=True, stdin=subprocess.DEVNULL,
        env=os.environ | {"TMPDIR": str(temporary)},
    )  # fmt: skip
    said = _strike_out(f"{done.stdout}\n{done.stderr}".strip())
    if done.returncode and "Authentication required" in said:
        held = _find_credentials()
        places = ", ".join(place for place, secrets in held.items() if secrets)
        raise RuntimeError(
            f"Kaggle must take the credentials in {places}, however it does not; make a new token at {_TOKENS}"
            if places
            else "Kaggle's credentials must be at hand, however "
            f"{', '.join(held) + ' holds none' if held else 'none were found'}; log in with `.venv/bin/kaggle auth "
            f"login`, or save a token that you make at {_TOKENS} as ~/.kaggle/access_token"
        )
    if done.returncode and not fails:
        raise RuntimeError(f"kaggle {' '.join(arguments[:2])} must succeed, however: {advise(said, remedies)}")
    return said


def advise(said: str, remedies: Mapping[str, str] | None = None) -> str:
    """Give the last lines of what the client said, and the first remedy that fits."""
    known = [*(remedies or {}).items(), *_REMEDIES.items()]
    fitting = [remedy for pattern, remedy in known if re.search(pattern, said)]
    shown = "\n".join(said.splitlines()[-8:])
    return shown + (f" ({fitting[0]})" if fitting else "")


def _find_credentials() -> dict[str, list[str]]:
    # Where the client looks for them: the secrets of each place that has any.
    found = {name: [os.environ[name]] for name in ("KAGGLE_KEY", "KAGGLE_API_TOKEN") if os.environ.get(name)}
    own = [Path.home() / ".kaggle", Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "kaggle"]
    configured = os.environ.get("KAGGLE_CONFIG_DIR")
    for path in (
        folder / name
        for folder in ([Path(configured)] if configured else []) + own
        for name in ("access_token", "access_token.txt", "kaggle.json", "credentials.json")
    ):
        if path.is_file():
            text = path.read_text(encoding="utf-8", errors="replace").strip()
            keys = re.findall(r'"(?:key|access_token|refresh_token)"\s*:\s*"([^"]+)"', text)
            secrets = keys if path.suffix == ".json" else [text]
            found[str(path)] = [secret for secret in secrets if secret]  # none, where the file is damaged
    return found


def _strike_out(said: str) -> str:
    for secret in (secret for secrets in _find_credentials().values() for secret in secrets):
        said = said.replace(secret, "***")
    return said
