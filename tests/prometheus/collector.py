"""A collector of traces on loopback: takes OTLP over HTTP as JSON, writes each body as a line, and ends with the process that started it.

    collector.py FILE PORT_FILE
"""

import json
import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

spans, port_file = Path(sys.argv[1]), Path(sys.argv[2])


class Collector(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        good = self.path == "/v1/traces" and self.headers.get("content-type") == "application/json"
        if good:
            with spans.open("a") as file:
                file.write(json.dumps(json.loads(body)) + "\n")
        self.send_response(200 if good else 415)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_):
        pass


def end_with(parent):
    for _ in range(300 * int(os.environ.get("COFFERDAM_TEST_SLOWNESS", "1"))):
        time.sleep(1)
        if os.getppid() != parent:
            break
    os._exit(0)


server = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
threading.Thread(target=end_with, args=(os.getppid(),), daemon=True).start()
port_file.write_text(str(server.server_address[1]))
server.serve_forever()
