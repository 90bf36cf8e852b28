"""A local S3 server (moto) that counts the bytes that it sends, and fails as it is told."""

import os
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
from hdmf.backends.hdf5.h5_utils import H5DataIO
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from pynwb import NWBHDF5IO, NWBFile
from pynwb.ecephys import ElectricalSeries
from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.utils import send_file

BUCKET = "lab"
#: Where :func:`write_nwb` puts the signal.
SERIES = "acquisition/ElectricalSeries"
#: Bytes are counted in pieces of so many, since a client may hang up.
COUNTED = 65_536
ERROR = (
    '<?xml version="1.0" encoding="UTF-8"?>\n'
    "<Error><Code>{code}</Code><Message>{message}</Message></Error>"
)
#: What S3 answers, by code: status and message (docs of Amazon S3, "Error responses").
ANSWERS = {
    "AccessDenied": ("403 Forbidden", "Access Denied"),
    "ExpiredToken": ("400 Bad Request", "The provided token has expired."),
    "InvalidAccessKeyId": (
        "403 Forbidden",
        "The AWS Access Key Id you provided does not exist in our records.",
    ),
    "SlowDown": ("503 Slow Down", "Please reduce your request rate."),
    "TooManyRequests": ("429 Too Many Requests", "Please reduce your request rate."),
    "InternalError": ("500 Internal Server Error", "We encountered an internal error."),
}


class _Quiet(WSGIRequestHandler):
    def log(self, *given: Any) -> None:
        pass


class Bucket:
    """An S3 server with one bucket.

    ``fault`` is asked for each request, by its environment: a key of ANSWERS, ``lost`` (the
    connection ends half way), or nothing.
    """

    def __init__(self) -> None:
        self.sent = 0
        self.files: dict[str, Path] = {}  # large ones, of which moto would read all each time
        self.fault: Callable[[dict[str, Any]], str] = lambda _: ""
        self._app = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self, threaded=True, request_handler=_Quiet)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.client = boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )
        self.client.create_bucket(Bucket=BUCKET)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        """Answer one request."""
        fault = self.fault(environ)
        if fault in ANSWERS:
            status, message = ANSWERS[fault]
            start_response(status, [("Content-Type", "application/xml")])
            if environ["REQUEST_METHOD"] != "HEAD":
                yield ERROR.format(code=fault, message=message).encode()
            return
        file = self.files.get(environ["PATH_INFO"])
        app = send_file(file, environ, conditional=True) if file else self._app
        for block in app(environ, start_response):
            for start in range(0, len(block), COUNTED):
                piece = block[start : start + COUNTED]
                yield piece
                self.sent += len(piece)
                if fault == "lost":
                    raise ConnectionAbortedError

    def put(self, path: Path, name: str) -> None:
        """Copy a file, or all files of a folder, into the bucket, for everybody to read."""
        files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
        for file in files:
            key = name if file == path else f"{name}/{file.relative_to(path)}"
            with file.open("rb") as body:
                self.client.upload_fileobj(body, BUCKET, key, ExtraArgs={"ACL": "public-read"})

    def environment(self) -> dict[str, str]:
        """Return what a client has to know."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_MAX_ATTEMPTS": "1",
        }

    def close(self) -> None:
        """Stop the server."""
        self._server.shutdown()


def write_nwb(path: Path, traces: Any, rate_hz: float, **of_data: Any) -> None:
    """Write an NWB file of one probe; ``of_data``: how HDF5 stores the samples."""
    file = NWBFile("x", "x", datetime(2026, 1, 1, tzinfo=UTC))
    group = file.create_electrode_group("g", "x", "x", file.create_device("d"))
    for number in range(traces.shape[1]):
        file.add_electrode(group=group, location="x", rel_x=0.0, rel_y=20.0 * number)
    series = ElectricalSeries(
        name=SERIES.partition("/")[2],
        data=H5DataIO(traces, **of_data),
        electrodes=file.create_electrode_table_region(list(range(traces.shape[1])), "x"),
        rate=rate_hz,
        conversion=1e-6,
    )
    file.add_acquisition(series)
    with NWBHDF5IO(path, "w") as io:
        io.write(file)
