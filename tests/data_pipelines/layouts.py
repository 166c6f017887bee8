"""Tiny folders in the layouts of the published sets of composed queries, written by layout name."""

import io
import itertools
import json
import tarfile
from pathlib import Path

from PIL import Image

CATEGORIES = ("dress", "shirt", "toptee")


def write_json(path: Path, content) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def write_pictures(folder: Path, *names: str) -> None:
    """Writes pictures, each of another colour."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        place = sum(1 for path in folder.rglob("*") if path.is_file())
        Image.new("RGB", (12, 9), (place % 256, 7, 0)).save(folder / name)


def cirr(folder: Path) -> None:
    for split, place in (("train", "train/0"), ("val", "dev")):
        names = [f"{split}-{i}-0-img0" for i in range(6)]
        files = {name: f"./{place}/{name}.png" for name in names}
        write_json(folder / f"image_splits/split.rc2.{split}.json", files)
        write_pictures(folder / "img_raw", *files.values())
        pairs = [(names[i], names[i + 1]) for i in range(3)]
        group = {"id": 1, "members": names, "reference_rank": 0, "target_rank": 1}
        items = [
            {"pairid": 10 + i, "reference": a, "target_hard": b, "target_soft": {b: 1.0}, "caption": f"text {i}",
             "img_set": group}
            for i, (a, b) in enumerate(pairs)
        ]  # fmt: skip
        write_json(folder / f"captions/cap.rc2.{split}.json", items)


def cirr_ext(folder: Path) -> None:
    cirr(folder)
    for split in ("train", "val"):
        items = json.loads((folder / f"captions/cap.rc2.{split}.json").read_text())
        answers = {"0": "being a photo of dogs", "1": "add a big dog", "2": "[cr1] Covered in query", "3": " grass "}
        rows = [
            {key: item[key] for key in ("pairid", "reference", "target_hard")} | {"caption_extend": answers}
            for item in items
        ]
        write_json(folder / f"captions_ext/cap.ext.rc2.{split}.json", rows)


def cirr_r(folder: Path) -> None:
    cirr(folder)
    for split in ("train", "val"):
        items = json.loads((folder / f"captions/cap.rc2.{split}.json").read_text())
        url = lambda name: f"https://example.org/a/{name}.png"
        rows = [
            {"query_image_url": url(item["reference"]), "retrieved_image_url": url(item["target_hard"]),
             "difference_captions": "One text." if i == 0 else ["Add a dog.", "Remove the cat"]}
            for i, item in enumerate(items)
        ]  # fmt: skip
        write_json(folder / f"rewritten_captions/rewritten_{split}.json", rows)


def lasco(folder: Path) -> None:
    for split in ("train", "val"):
        pictures = [(i, f"{split}2014/COCO_{split}2014_{i:012d}.jpg") for i in (3, 42, 7)]
        write_pictures(folder, *(path for _, path in pictures))
        rows = [
            {"qid": a[0] * 1000, "query-image": list(a), "query-text": "Is it red?", "target-image": list(b)}
            for a, b in itertools.pairwise(pictures)
        ]
        write_json(folder / f"lasco_{split}.json", rows)
    write_pictures(folder, "val2014/COCO_val2014_000000000099.jpg")
    paths = [*(path for _, path in pictures), "val2014/COCO_val2014_000000000099.jpg"]
    write_json(folder / "lasco_val_corpus.json", [{"id": i, "path": f"val/{path}"} for i, path in enumerate(paths)])


def hotel_cir(folder: Path) -> None:
    for split, place in (("train", "train"), ("val", "val_test"), ("test", "val_test")):
        names = [f"{i}/travel/{split}{i}.jpg" for i in range(4)]
        write_pictures(folder / "images" / place, *names)
        paths = [f"/data/hotels/{name}" for name in names]
        row = {"query_image": paths[0], "result_image": paths[1], "difference": "a red bed"}
        more = row if split == "train" else row | {"distractors": paths[2:]}
        write_json(folder / f"captions/hotel_{split}_data.json", [row, more | {"query_image": paths[2]}])


def fashion_iq(folder: Path) -> None:
    for category in CATEGORIES:
        for split in ("train", "val", "test"):
            ids = [f"B0{category}{split}{i}" for i in range(4)]
            write_pictures(folder / "images", *(f"{id}.{'png' if i % 2 else 'jpg'}" for i, id in enumerate(ids)))
            write_json(folder / f"image_splits/split.{category}.{split}.json", ids)
            row = {"candidate": ids[0], "target": ids[1], "captions": ["is darker.", " has sleeves"]}
            rows = [row, row | {"candidate": ids[1], "target": ids[2], "captions": ["is red", "is red?"]}]
            rows = [{key: row[key] for key in row if key != "target" or split != "test"} for row in rows]
            write_json(folder / f"captions/cap.{category}.{split}.json", rows)


def circo(folder: Path) -> None:
    images = [{"id": i, "file_name": f"{i:012d}.jpg", "height": 9} for i in (1, 2, 7, 9)]
    write_json(folder / "COCO2017_unlabeled/annotations/image_info_unlabeled2017.json", {"images": images, "info": {}})
    write_pictures(folder / "COCO2017_unlabeled/unlabeled2017", *(image["file_name"] for image in images))
    row = {"reference_img_id": 1, "relative_caption": "has two people", "shared_concept": "a red umbrella", "id": 0}
    truth = {"target_img_id": 2, "gt_img_ids": [7, 2], "semantic_aspects": ["cardinality", "addition"]}
    write_json(folder / "annotations/val.json", [row | truth, row | truth | {"id": 1, "reference_img_id": 7}])
    write_json(folder / "annotations/test.json", [row, row | {"id": 1}])


def genecis(folder: Path) -> None:
    write_pictures(folder / "val2017", *(f"{i:012d}.jpg" for i in (139, 285, 632, 724)))
    write_pictures(folder, "VG_100K/2345.jpg", "VG_100K_2/61.jpg")
    coco = [{"val_image_id": i} for i in (139, 285, 632, 724)]
    boxes = [{"image_id": i, "instance_bbox": [x, 2, 3.5, 4]} for i in (2345, 61) for x in (1, 5)]
    for task, pictures in (("object", coco), ("attribute", boxes)):
        for kind in ("focus", "change"):
            row = {"condition": "red", "reference": pictures[0], "target": pictures[1], "gallery": pictures[2:]}
            write_json(folder / f"genecis/{kind}_{task}.json", [row, row | {"reference": pictures[3]}])


def manifest(folder: Path) -> None:
    write_pictures(folder, "a.png", "b/c.png", "d.jpg")
    rows = [
        {"reference": "a.png", "target": "b/c.png", "caption": "make it blue"},
        {"reference": "./b/c.png", "target": "d.jpg", "caption": "turn it"},
    ]
    write_json(folder / "train.json", rows)
    (folder / "val.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n")


def write_shard(path: Path, samples: list[tuple[str, str, dict]]) -> None:
    """Writes a shard of (key, ending, JSON) as the format's own library does; each picture is of another colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:  # PAX, with the time as a fraction in an extended header
        for number, (key, ending, about) in enumerate(samples):
            picture = io.BytesIO()
            form = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}[ending]
            colour = ((40 * number + 13 * int(path.stem[-6:])) % 256, len(key), 99 if "query" in path.name else 7)
            Image.new("RGB", (12, 9), colour).save(picture, form)
            for name, data in ((f"{key}.{ending}", picture.getvalue()), (f"{key}.json", json.dumps(about).encode())):
                member = tarfile.TarInfo(name)
                member.size, member.mtime = len(data), 1764402000.25
                tar.addfile(member, io.BytesIO(data))


def icir(folder: Path) -> None:
    """Two instances: "duck" has two right pictures of one text and one of another, "lamp" one."""
    row = lambda side, instance, place, text: {"img_path": f"icir/{side}/{instance}/{place}", "text": text,
                                               "instance": instance}  # fmt: skip
    queries = [
        row("query", "duck", "q1.jpg", "on a shelf"), row("query", "duck", "q1.jpg", "in water"),
        row("query", "lamp", "q1.jpg", "on a shelf"),
    ]  # fmt: skip
    database = [
        row("database", "duck", "on_a_shelf/p1.jpg", "on a shelf"),
        row("database", "lamp", "on_a_shelf/p1.jpg", "on a shelf"),
        row("database", "duck", "hn/n1.png", "hn"), row("database", "duck", "on_a_shelf/p2.webp", "on a shelf"),
        row("database", "duck", "in_water/p1.jpg", "in water"), row("database", "lamp", "hn/n1.jpg", ""),
    ]  # fmt: skip
    sample = lambda number, about: (f"{number:06d}", about["img_path"].rpartition(".")[2], about)
    for side, rows in (("query", queries), ("database", database)):
        for shard in (0, 1):
            own = [sample(number, about) for number, about in enumerate(rows) if number % 2 == shard]
            write_shard(folder / f"webdataset/{side}/{side}-{shard:06d}.tar", own)
        lines = [f"{about['img_path']},{about['text']},{about['instance']}\n" for about in rows]
        (folder / "annotations").mkdir(exist_ok=True)
        (folder / f"annotations/{side}_files.csv").write_text("".join(lines))


GARMENTS = {
    "train": {
        "dress": {"women/a/1/1_0.jpeg": "red lace dress", "women/a/1/1_1.jpeg": "red lace dress",
                  "women/a/2/2_0.jpeg": "blue lace dress", "women/a/3/3_0.jpeg": "red silk dress",
                  "women/a/4/4_0.jpeg": "a long grey gown", "women/a/5/5_0.jpeg": "",
                  "women/a/6/6_0.jpeg": "a grey long gown"},
        "top": {"women/b/6/6_0.jpeg": "red lace top"},
    },
    "test": {
        "dress": {"women/c/7/7_0.jpeg": "black mini dress", "women/c/8/8_0.jpeg": "white mini dress",
                  "women/c/8/8_1.jpeg": "white mini dress"},
        "pants": {"women/d/9/9_0.jpeg": "white slim pants"},
    },
}  # fmt: skip


def fashion200k(folder: Path) -> None:
    """Garments whose descriptions differ in one word, in two splits of two categories each."""
    (folder / "labels").mkdir()
    for split, categories in GARMENTS.items():
        for category, pictures in categories.items():
            write_pictures(folder, *pictures)
            lines = [f"{picture}\t0.97\t{text}\n" for picture, text in pictures.items()]
            (folder / f"labels/{category}_{split}_detect_all.txt").write_text("".join(lines))
    (folder / "test_queries.txt").write_text("women/c/7/7_0.jpeg women/c/8/8_1.jpeg\n")


LAYOUTS = {
    write.__name__: write
    for write in (cirr, cirr_ext, cirr_r, lasco, hotel_cir, fashion_iq, circo, genecis, manifest)
}  # fmt: skip
