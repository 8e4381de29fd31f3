import hashlib
import http.server
import io
import struct
import threading
import zipfile

import pytest

from ftkit.classifier import download
from ftkit.errors import EnvironmentFault, UnavailableError

CONTENT = b"ham\tmade up for a test\nspam\tWIN now\n" * 40


def make_zip(*members: tuple[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return buffer.getvalue()


GOOD = make_zip(("readme", b"about"), (download.MEMBER, CONTENT))


@pytest.fixture
def server(monkeypatch):
    """Serves ``server.pages``: path -> (status, body, declared length)."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            site.requests.append(self.path)
            status, body, length = site.pages[self.path]
            self.send_response(status)
            self.send_header("Content-Length", str(length or len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    monkeypatch.setattr(download, "MEMBER_SHA256", hashlib.sha256(CONTENT).hexdigest())
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    site = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    site.pages, site.requests = {"/good": (200, GOOD, None)}, []
    site.url = lambda path: f"http://127.0.0.1:{site.server_port}{path}"
    thread = threading.Thread(target=site.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield site
    site.shutdown()
    site.server_close()
    thread.join()


def files_in(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def test_download_is_verified_and_kept(server, tmp_path):
    path = download.fetch_sms_spam(tmp_path, (server.url("/good"),))
    assert path.read_bytes() == CONTENT
    assert files_in(tmp_path) == [path]
    assert download.fetch_sms_spam(tmp_path, (server.url("/good"),)) == path
    assert server.requests == ["/good"]


def test_damaged_copy_in_the_cache_is_replaced(server, tmp_path):
    path = download.fetch_sms_spam(tmp_path, (server.url("/good"),))
    path.write_bytes(CONTENT[:-1])
    assert download.fetch_sms_spam(tmp_path, (server.url("/good"),)).read_bytes() == CONTENT
    assert len(server.requests) == 2


def test_cache_folder_follows_the_environment(server, tmp_path, monkeypatch):
    monkeypatch.setenv("FTKIT_CACHE", str(tmp_path / "mine"))
    path = download.fetch_sms_spam(urls=(server.url("/good"),))
    assert path.is_relative_to(tmp_path / "mine")
    monkeypatch.delenv("FTKIT_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert download.cache_folder() == tmp_path / ".cache/ftkit"


def test_second_mirror_after_an_error_page(server, tmp_path):
    server.pages["/moved"] = (200, b"<html>the archive is being maintained</html>", None)
    server.pages["/gone"] = (404, b"<html>gone</html>", None)
    urls = tuple(map(server.url, ("/gone", "/moved", "/good")))
    assert download.fetch_sms_spam(tmp_path, urls).read_bytes() == CONTENT
    assert server.requests == ["/gone", "/moved", "/good"]


def bomb() -> bytes:
    return make_zip((download.MEMBER, b"\0" * (download.SIZE_LIMIT + 1)))


def lying_bomb() -> bytes:
    """Unpacks to more than the limit, and says 100 bytes in both of its headers."""
    data = bytearray(bomb())
    true_size = struct.pack("<I", download.SIZE_LIMIT + 1)
    assert data.count(true_size) == 2
    return bytes(data.replace(true_size, struct.pack("<I", 100)))


def damaged() -> bytes:
    """The first compressed byte of the messages is no start of a block."""
    with zipfile.ZipFile(io.BytesIO(GOOD)) as archive:
        start = archive.getinfo(download.MEMBER).header_offset + 30 + len(download.MEMBER)
    return GOOD[:start] + b"\xff" + GOOD[start + 1 :]


BAD = {
    "html": (b"<html>maintenance</html>", "not a usable zip file"),
    "empty": (b"", "not a usable zip file"),
    "truncated": (GOOD[:-30], "not a usable zip file"),
    "damaged": (damaged(), "not a usable zip file"),
    "missing": (make_zip(("readme", b"about")), "not a usable zip file"),
    "bomb": (bomb(), "hash of downloaded file"),
    "lying bomb": (lying_bomb(), "not a usable zip file"),
    "short": (make_zip((download.MEMBER, CONTENT[:-1])), "hash of downloaded file"),
    "other": (make_zip((download.MEMBER, CONTENT.replace(b"WIN", b"won"))), "hash of downloaded file"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_archives_are_refused_and_leave_nothing(server, tmp_path, case):
    body, reason = BAD[case]
    server.pages["/bad"] = (200, body, None)
    with pytest.raises(UnavailableError) as caught:
        download.fetch_sms_spam(tmp_path, (server.url("/bad"),))
    assert reason in str(caught.value)
    assert files_in(tmp_path) == []


def test_broken_off_and_endless_downloads(server, tmp_path, monkeypatch):
    server.pages["/cut"] = (200, GOOD[:100], len(GOOD))
    with pytest.raises(UnavailableError, match=r"broke off|IncompleteRead"):
        download.fetch_sms_spam(tmp_path, (server.url("/cut"),))
    monkeypatch.setattr(download, "SIZE_LIMIT", len(GOOD) - 1)
    with pytest.raises(UnavailableError, match="sends more than"):
        download.fetch_sms_spam(tmp_path, (server.url("/good"),))
    monkeypatch.undo()
    monkeypatch.setattr(download, "DEADLINE", -1.0)
    with pytest.raises(UnavailableError, match="takes longer than"):
        download.fetch_sms_spam(tmp_path, (server.url("/good"),))
    assert files_in(tmp_path) == []


def test_offline_says_what_to_do(server, tmp_path):
    server.shutdown()
    server.server_close()
    with pytest.raises(UnavailableError) as caught:
        download.fetch_sms_spam(tmp_path, (server.url("/good"), server.url("/again")))
    message = str(caught.value)
    assert server.url("/good") in message
    assert server.url("/again") in message
    assert "local SMSSpamCollection file" in message
    assert "source: demo" in message
    assert caught.value.exit_code == 3


def test_cache_that_cannot_be_written(server, tmp_path):
    (tmp_path / "sms" / download.MEMBER).mkdir(parents=True)
    with pytest.raises(EnvironmentFault, match="cannot be written"):
        download.fetch_sms_spam(tmp_path, (server.url("/good"),))
    assert files_in(tmp_path) == []
