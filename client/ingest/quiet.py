"""Keeps the words of third-party libraries in: their warnings and log messages quote values of the data
set.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator

from pydicom import config as pydicom_config

_LOGGERS = ("pydicom", "pylibjpeg", "gdcm", "PIL")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Within, nothing of their warnings and log messages reaches a stream, a file or a handler."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    loggers += [
        logger
        for name, logger in list(logging.root.manager.loggerDict.items())
        if isinstance(logger, logging.Logger) and name.split(".")[0] in _LOGGERS
    ]
    before = [logger.disabled for logger in loggers]
    mode = pydicom_config.settings.reading_validation_mode
    for logger in loggers:
        logger.disabled = True
    pydicom_config.settings.reading_validation_mode = pydicom_config.IGNORE
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        pydicom_config.settings.reading_validation_mode = mode
        for logger, disabled in zip(loggers, before):
            logger.disabled = disabled
