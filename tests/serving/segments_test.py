"""Tests of segments and manifests: their names, and damaged ones."""

import numpy as np
import pytest

from contextjax.serving import segments
from contextjax.serving.index import Index
from contextjax.serving.segments import Segment
from contextjax.serving.storage import pack
from contextjax.types import UserError
from tests.serving.conftest import vectors


def test_segments_that_differ_in_scales_alone_have_files_of_their_own(tmp_path):
    packed, stamps = pack(np.ones((1, 4), np.float32), "int8"), np.zeros((1, 2), np.int64)
    write = lambda scale: Segment.write(tmp_path, ["a"], stamps, packed._replace(scales=np.full(1, scale, np.float32)))
    one, two = write(0.5), write(0.25)
    assert one.path != two.path == write(0.25).path
    assert [Segment.open(segment.path).embeddings().scales for segment in (one, two)] == [0.5, 0.25]


def test_damaged_files_are_refused(tmp_path):
    index = Index.create(tmp_path, 16)
    index.add(["a", "b"], vectors(2))
    file = tmp_path / segments.FOLDER / index.manifest.segments[0]
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(UserError, match="not a whole segment"):
        Index(tmp_path)
    manifest = tmp_path / segments.MANIFEST
    manifest.write_text(manifest.read_text().replace('"version": 2', '"version": 9'))
    with pytest.raises(UserError, match="version 9"):
        Index(tmp_path)
    manifest.write_text('{"version": 2, "segments": ["../x"], "storage": "int8", "dimension": 16}')
    with pytest.raises(UserError, match="is no index"):
        Index(tmp_path)
