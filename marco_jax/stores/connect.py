"""The libraries that reach object stores, and the defaults that all users of them get.

fsspec's gcsfs and s3fs do the work: Orbax and TFDS read and write by fsspec as well (etils.epath),
so that one set of credentials and one way of retrying serve them all. They are imported when the
first path of their scheme is used. Listings are not cached, since other processes write to the same
bucket; a failed request is repeated with growing pauses, for about a minute in all.
"""

from __future__ import annotations

import errno
import functools
import importlib
import logging
import os
import re
import sys
from typing import Any

from marco_jax.extras import optional

# Schemes, and the extra that each needs.
SCHEMES = {"gs": "gcs", "s3": "s3"}
# One slash too, since joining paths turns "gs://b" into "gs:/b".
URL = re.compile(r"(gs|s3)://?([^/]*)/*(.*)", re.DOTALL)
# s3fs pauses for 0.1 s * 1.7^n, 15 s at most: a minute in all. gcsfs pauses for 2^n seconds, with
# six tries.
_S3_TRIES = 13
# Errors of a connection or a disk, which a later attempt may not meet.
_PASSING = (
    *(errno.EIO, errno.EBUSY, errno.ETIMEDOUT, errno.EPIPE, errno.ENETUNREACH, errno.EHOSTUNREACH),
    *(errno.ECONNREFUSED, errno.ECONNRESET, errno.ECONNABORTED),
)


def is_url(path: str | os.PathLike | Any) -> bool:
    """Whether a path is one of an object store."""
    return URL.match(str(path)) is not None


def kvstore_spec(url: str) -> dict[str, Any]:
    """TensorStore's specification of an object or folder, which it reads and writes itself."""
    scheme, bucket, name = URL.match(url).groups()
    configure(scheme)
    name = name.strip("/")
    if scheme == "gs":
        return {"driver": "gcs", "bucket": bucket, "path": name}
    spec = {"driver": "s3", "bucket": bucket, "path": name}
    if os.environ.get("AWS_ACCESS_KEY_ID"):
        spec["aws_credentials"] = {"type": "environment"}
    if endpoint := os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL"):
        spec["endpoint"] = endpoint
        spec["aws_region"] = os.environ.get("AWS_DEFAULT_REGION", "us-east-1")
    return spec


def store_error(error: BaseException) -> bool:
    """Whether an error is that of a store or its connection, not of what a user has given."""
    if isinstance(error, OSError) and error.errno in _PASSING:
        return True
    names = {
        "aiohttp": ("ClientError",),
        "gcsfs.retry": ("HttpError",),
        "botocore.exceptions": ("BotoCoreError", "ClientError"),
        "google.auth.exceptions": ("GoogleAuthError",),
    }
    classes = [
        getattr(sys.modules[module], name)
        for module, found in names.items()
        if module in sys.modules
        for name in found
    ]
    return isinstance(error, tuple(classes))


@functools.cache
def configure(scheme: str) -> None:
    """Sets the defaults of the libraries of a scheme, for our own paths and for Orbax's.

    The variables that Google's and Amazon's tools read for a server of one's own count for all.
    """
    # etils.epath would use TensorFlow's file systems, which have their own credentials and errors.
    os.environ.setdefault("EPATH_USE_TF", "0")
    with optional(f"a path of {scheme}://"):
        import fsspec

        defaults: dict[str, Any] = {"use_listings_cache": False}
        if scheme == "gs":
            server = os.environ.get("STORAGE_EMULATOR_HOST")
            if server:
                os.environ.setdefault("TENSORSTORE_GCS_HTTP_URL", server)
                os.environ.setdefault("GOOGLE_AUTH_TOKEN_FOR_TESTING", "none")
                # Asks another server what kind of bucket it is, and waits for it for a minute.
                os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
                defaults["token"] = "anon"
            importlib.import_module("gcsfs")
            if server:
                # Where another library has imported gcsfs before, that variable came too late.
                files = importlib.import_module("gcsfs.core").GCSFileSystem
                for protocol in ("gs", "gcs"):
                    fsspec.register_implementation(protocol, files, clobber=True)
        else:
            importlib.import_module("s3fs").S3FileSystem.retries = _S3_TRIES
            attempts = {"retries": {"mode": "standard", "max_attempts": 5}}
            defaults["config_kwargs"] = attempts
    # They log the traceback of a request that failed for good, which is reported in one line.
    for name in ("gcsfs", "gcsfs.retry", "s3fs"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    for protocol in ("gs", "gcs") if scheme == "gs" else ("s3",):
        fsspec.config.conf[protocol] = defaults | fsspec.config.conf.get(protocol, {})


@functools.cache
def file_system(scheme: str) -> Any:
    """Fsspec's file system of a scheme."""
    configure(scheme)
    import fsspec

    return fsspec.filesystem(scheme)
