"""The TensorBoard file: its scalars are those that were written, and a full disk ends it silently."""

import struct

from contextjax.training.tensorboard import TensorBoardWriter


def events(folder):
    """Yields the events of a folder's files: each record is a length, its checksum, the event and its checksum."""
    from tensorboardX.proto.event_pb2 import Event

    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            yield Event.FromString(data[12 : 12 + length])
            data = data[16 + length :]


def test_scalars_are_those_that_were_written(tmp_path):
    writer = TensorBoardWriter(tmp_path, first=4)
    writer.write(4, {"loss": 0.25, "val/R@5": 12.5})
    writer.write(5, {"loss": 0.125})
    writer.close()
    written = [
        (event.step, value.tag, value.simple_value) for event in events(tmp_path) for value in event.summary.value
    ]
    assert written == [(4, "loss", 0.25), (4, "val/R_at_5", 12.5), (5, "loss", 0.125)]


def test_a_file_that_cannot_be_written_is_given_up(tmp_path):
    writer = TensorBoardWriter(tmp_path, first=1)
    file, calls = writer._writer, []

    class Full:
        def write_event(self, event):
            calls.append(event)
            raise OSError("no space left")

    writer._writer = Full()
    for step in (1, 2):
        writer.write(step, {"loss": 1.0})
    writer.close()
    assert len(calls) == 1
    file.close()
