"""A local server with S3's API, in a separate process."""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from auditstream_local.server import with_lifeline


@contextmanager
def s3_server() -> Iterator[dict[str, str]]:
    """Serve on a free port, and yield the AWS variables of the server."""
    process = subprocess.Popen(
        with_lifeline(sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        address = next(match[0] for line in process.stderr if (match := re.search(r"http://127\.0\.0\.1:\d+", line)))
        yield {
            "AWS_ENDPOINT_URL": address,
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
        }
    finally:
        process.kill()
        process.communicate()
