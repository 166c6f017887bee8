"""Readers of data sets: one for each layout, by the name that a config's data.reader gives it."""

from collections.abc import Mapping
from typing import Any

from data_pipelines.datasets.captions import CaptionsReader
from data_pipelines.datasets.catalogue.readers import CatalogueCaptionsReader, CatalogueReader, CatalogueSetsReader
from data_pipelines.datasets.circo import CircoReader
from data_pipelines.datasets.cirr import CirrCaptionsReader, CirrReader
from data_pipelines.datasets.cirr_ext import CirrExtReader
from data_pipelines.datasets.cirr_r import CirrRewrittenReader
from data_pipelines.datasets.fashion200k import Fashion200kReader
from data_pipelines.datasets.fashion_iq import FashionIqReader
from data_pipelines.datasets.genecis import GenecisReader
from data_pipelines.datasets.hotel_cir import HotelCirReader
from data_pipelines.datasets.icir import IcirReader
from data_pipelines.datasets.imagecode import ImageCodeReader
from data_pipelines.datasets.karpathy import KarpathyReader
from data_pipelines.datasets.lasco import LascoReader
from data_pipelines.datasets.manifest import ManifestReader
from data_pipelines.datasets.mmvp import MmvpReader

READERS: Mapping[str, Any] = {
    reader.name: reader
    for reader in (
        *(CirrReader, CirrExtReader, CirrRewrittenReader, LascoReader, HotelCirReader, FashionIqReader, CircoReader),
        *(GenecisReader, ManifestReader, CirrCaptionsReader, CaptionsReader, ImageCodeReader, MmvpReader),
        *(CatalogueReader, CatalogueSetsReader, CatalogueCaptionsReader, KarpathyReader, IcirReader),
        Fashion200kReader,
    )
}
