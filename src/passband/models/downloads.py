"""Pretrained weights from the network: told at once, and in one line, when they cannot be had."""

from __future__ import annotations

import logging
import os
import pickle
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlparse

from huggingface_hub import constants
from huggingface_hub.errors import HfHubHTTPError
from safetensors import SafetensorError

from passband.core.errors import PassbandError


@contextmanager
def explain_download(name: str) -> Iterator[None]:
    """Turn a failed download into an error that names the ways out.

    A machine that cannot even look up the hub's name asks only the local cache: without this, five attempts
    on each file would pass before the answer (46 s).

    Raises:
        PassbandError: when what ``name`` needs can neither be downloaded nor found in the cache.
    """
    before, logger = constants.HF_HUB_OFFLINE, logging.getLogger("timm")
    level = logger.level
    constants.HF_HUB_OFFLINE = before or not _reachable(constants.ENDPOINT)
    logger.setLevel(logging.CRITICAL)  # timm logs what the error below says
    try:
        yield
    except (OSError, HfHubHTTPError) as error:
        line = (str(error).splitlines() or [type(error).__name__])[0].split(". ")[0][:160]
        raise PassbandError(
            f"'{name}' could not be downloaded and is not in the cache ({line}); give weights from a file "
            "(--weights FILE), take the model without pretrained weights (--no-pretrained), or go online"
        ) from error
    except (RuntimeError, EOFError, pickle.UnpicklingError, SafetensorError) as error:
        line = (str(error).splitlines() or [type(error).__name__])[0][:160]
        raise PassbandError(
            f"the downloaded weights of '{name}' are damaged or do not fit ({line}); remove them from the cache of "
            "torch.hub or of the hub and give the same command again"
        ) from error
    finally:
        constants.HF_HUB_OFFLINE = before
        logger.setLevel(level)


def _reachable(address: str) -> bool:
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return True  # a proxy looks names up itself
    try:
        socket.getaddrinfo(urlparse(address).hostname, 443)
    except OSError:
        return False
    return True
