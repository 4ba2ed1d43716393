"""A single-user server for tests: what the hub and the proxy need of one, and a way to run code inside it.

Standard library only, so that it starts at once with the machine's Python. It checks nobody's identity.
"""

import contextlib
import io
import json
import os
import pathlib
import signal
import sys
import threading
import time
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

STATE = {"kernels": []}
SPACE = {"STATE": STATE}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path.endswith("/api/kernels"):
            self.answer(STATE["kernels"])
        else:
            self.answer({"version": "stub", "path": self.path})

    def do_POST(self):
        code = self.rfile.read(int(self.headers["Content-Length"])).decode()
        out = io.StringIO()
        try:
            with contextlib.redirect_stdout(out):
                exec(compile(code, "<test>", "exec"), SPACE)
            self.answer({"out": out.getvalue(), "error": ""})
        except BaseException as err:  # noqa: BLE001 - told to the test
            self.answer(
                {"out": out.getvalue(), "error": f"{type(err).__name__}: {err}", "trace": traceback.format_exc()}
            )

    def answer(self, document):
        body = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("X-JupyterHub-Version", "6.1.1")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


def main():
    told = os.path.expanduser("~/stub.json")
    wanted = json.loads(pathlib.Path(told).read_text()) if os.path.exists(told) else {}
    STATE["kernels"] = wanted.get("kernels", [])
    time.sleep(wanted.get("sleep", 0))
    if "exit" in wanted:
        print(wanted.get("words", ""), file=sys.stderr, flush=True)
        sys.exit(wanted["exit"])
    service = urlsplit(os.environ["JUPYTERHUB_SERVICE_URL"])
    server = ThreadingHTTPServer((service.hostname, service.port), Handler)
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    server.serve_forever()
    sys.exit(0)


if __name__ == "__main__":
    main()
