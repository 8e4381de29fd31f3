"""Composites of animated GIFs against those of a real browser."""

import base64
import json
import random
import shutil
import subprocess
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
from handmade_gif import LETTERS, Frame, gif
from test_gif import CASES, composited, handmade

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-extensions",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # the browser itself would call home
]  # fmt: skip
PAGE = """<script>
async function shown(text) {
  const data = Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
  const decoder = new ImageDecoder({data, type: 'image/gif'});
  await decoder.tracks.ready;
  await decoder.completed;
  const frames = [];
  for (let frameIndex = 0; frameIndex < decoder.tracks.selectedTrack.frameCount; frameIndex++) {
    const {image} = await decoder.decode({frameIndex});
    const context = new OffscreenCanvas(image.displayWidth, image.displayHeight).getContext('2d');
    context.fillStyle = 'white';
    context.fillRect(0, 0, image.displayWidth, image.displayHeight);
    context.drawImage(image, 0, 0);
    frames.push([...context.getImageData(0, 0, image.displayWidth, image.displayHeight).data]);
  }
  return frames;
}
Promise.all(FILES.map(shown)).catch(String).then(all => fetch('/', {method: 'POST', body: JSON.stringify(all)}));
</script>"""


def browse(page: str, folder: Path) -> str:
    """What a page posts once it is done."""
    posted: list[str] = []
    done = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(page.encode())

        def do_POST(self) -> None:
            posted.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
            self._answer(b"")
            done.set()

        def _answer(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/"
        command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={folder / 'profile'}", "--remote-debugging-port=0", address]
        browser = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            assert done.wait(90), "the browser said nothing"
        finally:
            browser.terminate()
            browser.wait(30)
            server.shutdown()
    return posted[0]


def drawn_by_lot(seed: int) -> bytes:
    """A GIF of 2 to 7 frames anywhere on or beyond the canvas, with any disposal, transparency and palettes."""
    chance = random.Random(seed)
    width, height = chance.randint(1, 12), chance.randint(1, 12)
    frames = []
    for number in range(chance.randint(2, 7)):
        letters = "".join(chance.sample(LETTERS, chance.choice((2, 4, 8))))
        columns = chance.randint(1, 12)
        frame = Frame(
            " ".join("".join(chance.choices(letters, k=columns)) for _ in range(chance.randint(1, 12))),
            at=(chance.randint(0, width), chance.randint(0, height)) if number or chance.random() < 0.5 else (0, 0),
            disposal=chance.randint(0, 4),
            local=letters if chance.random() < 0.5 else "",
            interlaced=chance.random() < 0.3,
        )
        frames.append(frame if "." in frame.examples else replace(frame, control=chance.random() < 0.7))
    return gif((width, height), *frames, background=chance.randint(0, 7))


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine (apt-get install chromium)")
def test_composites_are_those_of_a_browser(tmp_path: Path) -> None:
    files = {name: handmade(name) for name in CASES} | {f"lot {seed}": drawn_by_lot(seed) for seed in range(100)}
    page = PAGE.replace("FILES", json.dumps([base64.b64encode(data).decode() for data in files.values()]))
    shown = json.loads(browse(page, tmp_path))
    assert isinstance(shown, list), shown
    for (name, data), frames in zip(files.items(), shown, strict=True):
        for canvas, pixels in zip(composited(data), frames, strict=True):
            expected = np.array(pixels, np.uint8).reshape(*canvas.shape[:2], 4)[..., :3]
            np.testing.assert_array_equal(canvas, expected, err_msg=name)
