"""A single-user server for tests of TLS: says who it is, with the certificate that it was handed."""

import ctypes
import os
import signal
import ssl
import tempfile
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import urlsplit


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        body = f"the server of {os.environ['JUPYTERHUB_USER']}".encode()
        self.send_response(200)
        self.send_header("X-JupyterHub-Version", "6.1.0")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


# Servers outlive their hub; this one is to end with the test's.
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
with tempfile.NamedTemporaryFile("w") as file:
    file.write(os.environ["ASTROCLOUD_TLS_CERTIFICATE"] + os.environ["ASTROCLOUD_TLS_KEY"])
    file.flush()
    context.load_cert_chain(file.name)
server = HTTPServer(("127.0.0.1", urlsplit(os.environ["JUPYTERHUB_SERVICE_URL"]).port), Handler)
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
