"""Shards are read in place: names, places and contents as tarfile has them; hostile files end in a sentence."""

import io
import random
import tarfile

import pytest

from contextjax.types import UserError
from data_pipelines.shards import Member, members, samples


def write(path, files, *, form=tarfile.PAX_FORMAT, mode="w", **fields):
    """Writes a tar file of (name, contents), with other fields of its members."""
    with tarfile.open(path, mode, format=form) as tar:
        for name, data in files:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            for key, value in fields.items():
                setattr(member, key, value)
            tar.addfile(member, io.BytesIO(data))
    return path


FILES = [
    ("0001.jpg", b"a" * 511), ("0001.json", b"{}"), ("a/b.seg.png", b""),
    ("d" * 90 + "/" + "n" * 60 + ".jpg", b"x" * 512),
    ("long/" + "n" * 200 + ".JSON", b"y" * 513), ("\u00e9t\u00e9.jpg", b"z"),
]  # fmt: skip


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("mtime", [0, 1764402000.25])
def test_members_are_those_that_tarfile_lists(tmp_path, form, mtime):
    files = FILES if form != tarfile.USTAR_FORMAT else FILES[:4]
    path = write(tmp_path / "a.tar", files, form=form, mtime=mtime)
    read = list(members(path))
    assert [(member.name, member.read_bytes()) for member in read] == files
    with tarfile.open(path) as tar:
        assert [(x.name, x.offset_data, x.size) for x in tar] == [(x.name, x.offset, x.size) for x in read]
    member = read[0]
    assert member.open().read() == files[0][1] and member.stat().st_size == 511 and str(member) == f"{path}/0001.jpg"


def test_samples_are_members_that_share_a_key(tmp_path):
    path = write(tmp_path / "a.tar", FILES)
    grouped = {key: {ending: member.read_bytes() for ending, member in own.items()} for key, own in samples(path)}
    assert grouped["0001"] == {"jpg": b"a" * 511, "json": b"{}"} and grouped["a/b"] == {"seg.png": b""}
    assert grouped["long/" + "n" * 200] == {"json": b"y" * 513} and len(grouped) == 5
    write(path, [("1.jpg", b""), ("1.JPG", b"")])
    with pytest.raises(UserError, match=r"two members 1\.jpg"):
        list(samples(path))


def test_a_folder_in_it_is_passed_over_and_an_empty_one_has_no_member(tmp_path):
    path = write(tmp_path / "a.tar", [("place", b"")], type=tarfile.DIRTYPE)
    assert list(members(path)) == [] and list(members(write(path, []))) == []


@pytest.mark.parametrize("name", ["../a.jpg", "a/../../b.jpg", "/etc/passwd", "..\\a.jpg", "C:\\a.jpg"])
@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names_that_lead_out_are_refused(tmp_path, name, form):
    path = write(tmp_path / "a.tar", [(name, b"x")], form=form, mtime=0.5)
    with pytest.raises(UserError, match="leads out of its folder"):
        list(members(path))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(tmp_path, kind):
    path = write(tmp_path / "a.tar", [("a.jpg", b"")], type=kind, linkname="/etc/passwd")
    with pytest.raises(UserError, match="which is a link or a device"):
        list(members(path))


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "is cut short"),
        (b"no tar file" * 100, "is no tar file at byte 0"),
        (b"\x1f\x8b" + b"x" * 600, "is compressed; `gunzip` it"),
        (b"x" * 100, "is cut short"),
    ],
)
def test_what_is_no_tar_file_is_refused(tmp_path, data, sentence):
    (tmp_path / "a.tar").write_bytes(data)
    with pytest.raises(UserError, match=sentence):
        list(members(tmp_path / "a.tar"))
    with pytest.raises(UserError, match="can't be read"):
        list(members(tmp_path / "none.tar"))


def test_a_cut_file_is_refused_and_a_member_of_one_that_is_cut_later_too(tmp_path):
    path = write(tmp_path / "a.tar", FILES[:4])
    first, *_ = members(path)
    path.write_bytes(path.read_bytes()[:1600])
    with pytest.raises(UserError, match="is cut short"):
        list(members(path))
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(OSError, match="ends after 88 of 511"):
        first.read_bytes()


def test_every_damaged_file_is_read_or_refused(tmp_path):
    """Every member that is read lies within its file."""
    path, rng = write(tmp_path / "a.tar", FILES, mtime=0.5), random.Random(0)
    whole, refused = path.read_bytes(), 0
    for _ in range(400):
        data = bytearray(whole)
        for _ in range(rng.choice((1, 2, 8))):
            data[rng.randrange(len(data))] = rng.randrange(256)
        path.write_bytes(data[: rng.choice((len(data), rng.randrange(len(data))))])
        try:
            for member in members(path):
                assert (
                    isinstance(member, Member) and len(member.read_bytes()) == member.size and ".." not in member.name
                )
        except UserError:
            refused += 1
    assert 100 < refused < 400
