"""Which browser the pages are looked at with: the system's chromium, or one that is fetched.

python tests/browser/chromium.py      # fetches where it must, and prints the browser's path
"""

import os
import shutil
import signal
import subprocess
import sys

from playwright.sync_api import Error, Playwright, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
LONGEST = 300  # seconds for a way of fetching one


def found(playwright: Playwright) -> str | None:
    """The first browser that starts: a name alone says little, as where it stands for a package that is not
    there."""
    paths = [*map(shutil.which, NAMES), playwright.chromium.executable_path]
    return next((path for path in paths if path and os.path.exists(path) and starts(playwright, path)), None)


def starts(playwright: Playwright, path: str) -> bool:
    try:
        playwright.chromium.launch(executable_path=path).close()
    except Error:
        return False
    return True


def ways() -> dict[str, str]:
    """How one may be fetched, in a shell's words: playwright's own, with the libraries that it needs where
    that is allowed, or the system's package."""
    download = f'"{sys.executable}" -m playwright install chromium'
    if os.geteuid() or not shutil.which("apt-get"):
        return {"playwright install chromium": download}
    package = "apt-get -qq update && apt-get -qq install --no-install-recommends --yes chromium"
    return {"playwright install --with-deps chromium": f"{download} --with-deps", "apt-get install": package}


def main() -> int:
    with sync_playwright() as playwright:
        path, tried = found(playwright), {}
        for name, words in ways().items():
            if path:
                break
            print(f"no {', '.join(NAMES)} that starts: {name} …", file=sys.stderr)
            tried[name] = fetched(words)
            path = found(playwright)
    if path:
        print(path)
        return 0
    why = "; ".join(f"{name}: {said}" for name, said in tried.items())
    print(f"no browser can be had here: install {NAMES[0]} ({why})", file=sys.stderr)
    return 1


def fetched(words: str) -> str:
    """What came of it, in a line."""
    environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "env": environment}
    process = subprocess.Popen(["sh", "-c", words], start_new_session=True, **streams)
    try:
        printed, _ = process.communicate(timeout=LONGEST)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # its children too, which hold the pipe
        process.communicate()
        return f"not done after {LONGEST} s"
    lines = [line.strip() for line in printed.splitlines() if line.strip()]
    why = next(
        (line for line in lines if "rror" in line or line.startswith("E:")), lines[-1] if lines else ""
    )
    return why if process.returncode else "done, and none starts"


if __name__ == "__main__":
    sys.exit(main())
