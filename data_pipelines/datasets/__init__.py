"""The data sets' layouts: one reader each, by the name that a config's data.reader gives it."""

from collections.abc import Mapping
from typing import Any

from data_pipelines.datasets.captions import CaptionsReader
from data_pipelines.datasets.cirr import CirrCaptionsReader, CirrReader
from data_pipelines.datasets.imagecode import ImageCodeReader
from data_pipelines.datasets.mmvp import MmvpReader

READERS: Mapping[str, Any] = {
    reader.name: reader for reader in (CirrReader, CirrCaptionsReader, CaptionsReader, ImageCodeReader, MmvpReader)
}
