"""The protocols' table: names, readers, and what is said where there is none."""

import pytest

from contextjax.types import UserError
from data_pipelines import protocols
from data_pipelines.datasets import circo
from data_pipelines.protocols import PROTOCOLS


def test_protocols_are_found_by_name_and_by_reader():
    assert all(protocols.named(name) is protocol and protocol.name == name for name, protocol in PROTOCOLS.items())
    for reader, name in (
        ("cirr", "cirr"),
        ("fashion_iq", "fashion_iq_original"),
        ("mmvp", "mmvp"),
        ("cirr_r", "cirr_r"),
    ):
        assert protocols.of_reader(reader).name == name
    assert all(protocol.reader for protocol in PROTOCOLS.values())
    with pytest.raises(UserError, match=r"protocol is 'fashion_iq'; known are cirr, .*fashion_iq_val"):
        protocols.named("fashion_iq")
    with pytest.raises(UserError, match="reader 'catalogue_captions' reads; give --data and --protocol of one of cirr"):
        protocols.of_reader("catalogue_captions")


def test_a_mean_is_of_metrics_that_the_protocol_gives():
    for protocol in PROTOCOLS.values():
        recalls = ("IR", "TR") if protocol.both_ways else ("R",)
        given = {f"{recall}@{k}" for recall in recalls for k in protocol.recall_at}
        given |= {f"Rs@{k}" for k in protocol.subset_recall_at}
        assert set(protocol.average) <= given
        assert protocol.gallery in ("all", "named", "own", "instance")


def test_what_is_recorded_as_circos_template_is_the_readers():
    """The library's protocols and the readers are rooms of their own; a text in a result has to be the one asked."""
    assert protocols.CIRCO.template == circo.TEMPLATE
