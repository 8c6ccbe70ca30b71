#!/usr/bin/env python3
"""Opens the status page in headless Chromium and prints what a person would see there.

    page.py URL [--seconds 4] [--width 1200] [--dark] [--screenshot FILE]

Prints one JSON object: the texts of the page, and the errors of its script. Exit code 77 where
there is no Chromium. Speaks the browser's own debugging protocol through a pipe, so that nothing
but Chromium is needed.
"""

import argparse
import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time

NO_CHROMIUM = 77
FLAGS = """--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
    --disable-component-update --disable-sync --hide-scrollbars --remote-debugging-pipe""".split()
READ_PAGE = """JSON.stringify({
    title: document.title,
    health: document.getElementById("health").textContent,
    stale: document.body.classList.contains("stale"),
    tiles: [...document.querySelectorAll(".tile")].map((tile) => tile.innerText.replace("\\n", " ")),
    nodes: [...document.querySelectorAll("#nodes tr")].map((row) => row.innerText),
    topics: [...document.querySelectorAll("#topics tr")].map((row) => row.innerText),
    curve: document.getElementById("curve").getAttribute("d") || "",
    overflow: [document.documentElement, ...document.querySelectorAll(".card")]
        .some((box) => box.scrollWidth > box.clientWidth),
})"""


class Browser:
    """Chromium with its debugging pipe: messages are JSON, each ended by a zero byte."""

    def __init__(self, program: str, profile: str, width: int, dark: bool):
        to_browser, self.requests = os.pipe()
        self.answers, from_browser = os.pipe()
        flags = [*FLAGS, f"--user-data-dir={profile}", f"--window-size={width},1000"]
        if dark:
            flags.append("--force-dark-mode")
        # The browser reads from descriptor 3 and writes to 4. The shell puts them there: high
        # numbers first, so that neither overwrites the other.
        script = f'exec "$@" 3<&{to_browser} 4>&{from_browser}'
        self.process = subprocess.Popen(
            ["bash", "-c", script, "bash", program, *flags, "about:blank"],
            pass_fds=(to_browser, from_browser), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self.buffer, self.next_id, self.session, self.errors = b"", 1, None, []

    def call(self, method: str, **parameters):
        """One command and its result."""
        message = {"id": self.next_id, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        self.next_id += 1
        os.write(self.requests, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.receive()
            if answer.get("method") == "Runtime.exceptionThrown":
                self.errors.append(answer["params"]["exceptionDetails"].get("text", "exception"))
            if answer.get("method") == "Log.entryAdded" and answer["params"]["entry"]["level"] == "error":
                self.errors.append(answer["params"]["entry"]["text"])
            if answer.get("id") == message["id"]:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]

    def receive(self):
        while b"\0" not in self.buffer:
            read = os.read(self.answers, 1 << 16)
            if not read:
                raise RuntimeError("the browser ended")
            self.buffer += read
        message, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(message)

    def open_page(self, url: str):
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        self.call("Page.navigate", url=url)

    def evaluate(self, expression: str):
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def close(self):
        self.process.kill()
        self.process.wait()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url")
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--width", type=int, default=1200)
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--screenshot")
    arguments = parser.parse_args()
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        print("no Chromium here", file=sys.stderr)
        return NO_CHROMIUM
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = Browser(program, profile, arguments.width, arguments.dark)
        try:
            browser.open_page(arguments.url)
            # The page is watched for this long, because rates need two looks.
            time.sleep(arguments.seconds)
            seen = json.loads(browser.evaluate(READ_PAGE))
            seen["errors"] = browser.errors
            print(json.dumps(seen, indent=1))
            if arguments.screenshot:
                image = browser.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]
                with open(arguments.screenshot, "wb") as file:
                    file.write(base64.b64decode(image))
        finally:
            browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
