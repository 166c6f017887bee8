"""An index of pictures in Milvus: in an embedded file (Milvus Lite), or in a cluster, by its address.

Only the embedded file has been tried, no cluster; the client is the same.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from contextjax.json_files import parse_json
from contextjax.serving import filters, interface
from contextjax.serving.filters import Value
from contextjax.serving.index import Index
from contextjax.serving.interface import Hits
from contextjax.serving.storage import unpack
from contextjax.types import UserError

ROWS = 1000  # of one request
UNAVAILABLE = 2  # Milvus's code of an error where nobody answers
LONGEST = 4096  # bytes of a name in UTF-8
ESCAPES = str.maketrans({"\\": r"\\", "'": r"\'", "\n": r"\n", "\r": r"\r", "\t": r"\t"})  # in a text of a condition


class MilvusIndex:
    """Names and embeddings in a collection of Milvus, with the calls of VectorIndex.

    Scores are cosines in float32. Equal ones come in Milvus's order.
    """

    def __init__(self, address: str = "index.db", *, dimension: int = 0, fingerprint: str = "", gallery: str = "",
                 collection: str = "contextjax", index_type: str = "FLAT", token: str = "",
                 timeout: float = 10.0):  # fmt: skip
        """Opens a collection, or makes it.

        Args:
          address: FILE.db, or http://HOST:PORT of a server.
          dimension: the number of values of an embedding in a new collection; 0: the collection must exist, and may be
            of any system and gallery.
          fingerprint: the identity of the system that makes the embeddings of a new collection.
          gallery: the place of the pictures of a new collection; empty: that of another one is not checked.
          collection: the collection's name.
          index_type: Milvus's name of the way in which a new collection is searched. FLAT is exact; others are not.
          token: user:password.
          timeout: seconds after which a server that does not answer a question is reported as unavailable; it has
            longer for new rows.

        Raises:
          UserError: pymilvus is missing, the server can't be reached, there is no such collection, or it is of another
            system, dimension or gallery than is given.
        """
        if not (_is_address(address) if "://" in address else address.endswith(".db")):
            raise UserError(f"The address of Milvus is '{address}'; expected FILE.db, or http://HOST:PORT.")
        try:
            from pymilvus import MilvusClient
        except ImportError as error:
            raise UserError(f"Milvus needs pymilvus ({error}); pip install 'contextjax[milvus]'.") from error
        logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # a UserError reports what goes wrong
        self.address, self._collection, self._timeout = address, collection, timeout
        with self._reported():
            self._client: Any = MilvusClient(address, token=token, timeout=timeout)
            facts = {"dimension": dimension, "fingerprint": fingerprint, "gallery": gallery, "kinds": {}}
            facts = self._known() or self._create(facts, index_type)
        self.dimension: int = facts["dimension"]
        self.fingerprint: str = facts["fingerprint"]
        self.gallery: str = facts["gallery"]
        self.kinds: dict[str, str] = facts.get("kinds") or {}  # the kind of each attribute
        self._has_attributes = "kinds" in facts  # a collection that an earlier version made has no field for them
        if dimension:
            self.check_made_for(dimension, fingerprint, gallery)

    def check(self, fingerprint: str) -> None:
        """Raises a UserError where another system than this one made the embeddings."""
        interface.check_fingerprint(self.fingerprint, fingerprint, place=self.address)

    def check_made_for(self, dimension: int, fingerprint: str, gallery: str) -> None:
        """Raises a UserError where the collection is not of this dimension, system and gallery."""
        self.check(fingerprint)
        if self.dimension != dimension:
            raise UserError(f"{self.address} holds {self.dimension} values a picture; expected {dimension}.")
        if gallery and self.gallery and self.gallery != gallery:
            raise UserError(
                f"The collection '{self._collection}' at {self.address} is of the gallery "
                f"{self.gallery or '(unnamed)'}, not {gallery or '(unnamed)'}; give this one another "
                "--milvus_collection."
            )

    def close(self) -> None:
        """Closes the file or the connection."""
        self._client.close()

    def __len__(self) -> int:
        with self._reported():
            options = {"output_fields": ["count(*)"], "timeout": self._timeout}
            return self._client.query(self._collection, filter="", **options)[0]["count(*)"]

    def present(self, names: Sequence[str]) -> list[str]:
        """Returns those of the names that are in the collection, in Milvus's order."""
        options = {"output_fields": ["name"], "timeout": self._timeout}
        with self._reported():
            return [
                row["name"]
                for begin in range(0, len(names), ROWS)
                for row in self._client.query(self._collection, filter=_is_in(names[begin : begin + ROWS]), **options)
            ]

    def attributes_of(self, names: Sequence[str]) -> list[dict[str, Value]]:
        """Returns the attributes of each picture by their names, without those that it lacks."""
        if not self.kinds:
            return [{} for _ in names]
        options, known = {"output_fields": ["name", "attributes"], "timeout": self._timeout}, {}
        with self._reported():
            for begin in range(0, len(names), ROWS):
                condition = _is_in(names[begin : begin + ROWS])
                rows = self._client.query(self._collection, filter=condition, **options)
                known |= {row["name"]: row["attributes"] or {} for row in rows}
        return [known.get(name, {}) for name in names]

    def describe(self, gallery: str, kinds: Mapping[str, str]) -> None:
        """Writes down what is the place of the pictures, and the kinds of their attributes.

        Raises:
          UserError: the collection was made without a place for attributes, or the server fails.
        """
        if kinds and not self._has_attributes:
            raise UserError(
                f"The collection '{self._collection}' at {self.address} was made without a field for attributes; give "
                "another --milvus_collection, or drop it."
            )
        if (self.gallery, self.kinds) != (gallery, kinds):
            facts = {"dimension": self.dimension, "fingerprint": self.fingerprint, "gallery": gallery}
            facts |= {"kinds": dict(kinds)} if self._has_attributes else {}
            with self._reported():
                self._write_facts(facts)
            self.gallery, self.kinds = gallery, dict(kinds)

    def add(
        self, names: Sequence[str], embeddings: np.ndarray, *, stamps: np.ndarray | None = None,
        attributes: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:  # fmt: skip
        """Appends pictures, see Index.add. A failure may leave the first of many rows.

        `attributes`: the values that each picture has, by their names, see `describe`.

        Raises:
          UserError: see Index.add; or a name is too long, or the server fails.
        """
        attributes = [{}] * len(names) if attributes is None else attributes
        interface.check_rows(names, embeddings, self.dimension)
        if not np.isfinite(embeddings).all():
            raise UserError("An embedding holds values that are not finite; the model has diverged.")
        if long := [name for name in names if len(name.encode(errors="replace")) > LONGEST]:
            raise UserError(f"{long[0][:60]!r}... has more than {LONGEST:,} bytes; the collection holds shorter names.")
        interface.check_new(names, self.present(names), place=self.address)
        marks = map(_stamp_text, interface.check_stamps(names, stamps), attributes)
        rows = zip(names, marks, embeddings.astype(np.float32), attributes, strict=True)
        data = [
            {"name": name, "stamp": mark, "embedding": vector} | ({"attributes": own} if self._has_attributes else {})
            for name, mark, vector, own in rows
        ]
        with self._reported():
            for begin in range(0, len(data), ROWS):
                self._client.insert(self._collection, data[begin : begin + ROWS])

    def remove(self, names: Collection[str]) -> None:
        """Removes pictures.

        Raises:
          UserError: some are not in the collection, or the server fails.
        """
        gone = sorted(set(names))
        interface.check_present(gone, self.present(gone), place=self.address)
        with self._reported():
            for begin in range(0, len(gone), ROWS):
                self._client.delete(self._collection, filter=_is_in(gone[begin : begin + ROWS]))

    def search(
        self, queries: np.ndarray, k: int, *, threshold: float | None = None, where: str | None = None
    ) -> list[Hits]:
        """Returns the k best (name, cosine) of each query [B, D], best first, but none below the threshold.

        `where`: a filter by the pictures' attributes, see filters.parse; None: all pictures.

        Raises:
          UserError: the collection is empty, the queries or the filter do not fit it, or the server fails.
        """
        queries = interface.check_queries(queries, k, self.dimension)
        options: dict[str, Any] = {"output_fields": ["name"], "timeout": self._timeout}
        if where is not None:
            options["filter"] = filters.expression(filters.parse(where, self.kinds), "attributes", _quoted)
        with self._reported():
            answers = self._client.search(self._collection, data=list(queries), limit=k, **options)
        if not any(answers) and (where is None or not len(self)):
            raise UserError("The index is empty; add pictures to it before it is searched.")
        ranked = [[(hit["entity"]["name"], float(hit["distance"])) for hit in hits] for hits in answers]
        return [interface.above(hits, threshold) for hits in ranked]

    def stamps(self) -> dict[str, str]:
        """Returns the stamp of every row by its name."""
        stamps = {}
        with self._reported():
            rows = self._client.query_iterator(self._collection, batch_size=ROWS, output_fields=["name", "stamp"])
            while batch := rows.next():
                stamps |= {row["name"]: row["stamp"] for row in batch}
            rows.close()
        return stamps

    def _known(self) -> dict[str, Any] | None:
        """Returns what the collection was made for, None where there is none.

        A second collection holds that, for Milvus Lite keeps no descriptions.
        """
        names = self._collection, self._facts
        exist = [self._client.has_collection(name, timeout=self._timeout) for name in names]
        if not exist[0]:
            return None
        for name in names[: sum(exist)]:
            self._client.load_collection(name)
        options = {"output_fields": ["value"], "timeout": self._timeout}
        rows = self._client.query(self._facts, filter=_is_in(["about"]), **options) if exist[1] else []
        if not rows:
            raise UserError(
                f"Nothing at {self.address} says what the collection '{self._collection}' is of: contextjax did not "
                "make it; give another --milvus_collection, or drop it."
            )
        return parse_json(rows[0]["value"])

    @property
    def _facts(self) -> str:
        return f"{self._collection}_about"

    def _create(self, facts: dict[str, Any], index_type: str) -> dict[str, Any]:
        if not facts["dimension"]:
            raise UserError(
                f"{self.address} has no collection '{self._collection}'; make it with experiments.embed --milvus."
            )
        # The facts come first: whatever is killed, no collection is without them.
        if not self._client.has_collection(self._facts, timeout=self._timeout):
            # Milvus takes no collection without a vector.
            self._make(self._facts, {"name": 64, "value": 65_535}, "unused", 2, "FLAT")
        self._write_facts(facts)
        texts = {"name": LONGEST, "stamp": 64}
        self._make(self._collection, texts, "embedding", facts["dimension"], index_type, "attributes")
        return facts

    def _write_facts(self, facts: dict[str, Any]) -> None:
        self._client.upsert(self._facts, [{"name": "about", "value": json.dumps(facts), "unused": [0.0, 1.0]}])

    def _make(
        self, name: str, texts: dict[str, int], vector: str, dimension: int, index_type: str, values: str = ""
    ) -> None:
        from pymilvus import DataType

        schema = self._client.create_schema(auto_id=False, enable_dynamic_field=False)
        for field, length in texts.items():
            schema.add_field(field, DataType.VARCHAR, max_length=length, is_primary=field == "name")
        schema.add_field(vector, DataType.FLOAT_VECTOR, dim=dimension)
        if values:
            schema.add_field(values, DataType.JSON)
        params = self._client.prepare_index_params()
        params.add_index(vector, index_type=index_type, metric_type="IP")
        self._client.create_collection(name, schema=schema, index_params=params, consistency_level="Strong")

    @contextlib.contextmanager
    def _reported(self) -> Iterator[None]:
        """Raises Milvus's errors as a UserError with their first line."""
        from pymilvus import MilvusException

        try:
            yield
        except MilvusException as error:
            reason = str(error.message).strip().partition("\n")[0]
            advice = "; check the address and the server" if error.code == UNAVAILABLE else ""
            raise UserError(f"Milvus at {self.address} says: {reason}{advice}.") from error


def mirror(index: Index, target: MilvusIndex) -> tuple[int, int]:
    """Makes a collection what an index is, a segment at a time. Rows that are there already are not sent again.

    Returns:
      (rows added, rows removed).

    Raises:
      UserError: the collection is of another dimension, system or gallery, or the server fails. A gallery at another
        place is the same one where half of the collection's pictures or more are, by name and contents.
    """
    manifest, known, count, now = index.manifest, target.stamps(), 0, {}
    attributes = dict(zip(index.names, index.attributes.rows(), strict=True))
    for segment in index.segments:
        own = [attributes[name] for name in segment.names]
        now |= dict(zip(segment.names, map(_stamp_text, segment.stamps, own), strict=True))
    contents = lambda marks: {name: mark.split("/")[0] for name, mark in marks.items()}
    same = len(contents(known).items() & {(k, v) for k, v in contents(now).items() if v != "0-0"})
    is_moved = 2 * same >= len(known) > 0
    target.check_made_for(manifest.dimension, manifest.fingerprint, "" if is_moved else manifest.gallery)
    target.describe(manifest.gallery, index.kinds)
    gone = [name for name, stamp in known.items() if now.get(name) != stamp]
    target.remove(gone)
    for segment, packed in zip(index.segments, index.embeddings(), strict=True):
        new = [row for row, name in enumerate(segment.names) if known.get(name) != now[name]]
        names = [segment.names[row] for row in new]
        own = [attributes[name] for name in names]
        target.add(names, unpack(packed[new]), stamps=segment.stamps[new], attributes=own)
        count += len(new)
    return count, len(gone)


def _is_address(address: str) -> bool:
    try:
        return bool(urlsplit(address).hostname) and urlsplit(address).port != 0
    except ValueError:
        return False


def _is_in(names: Sequence[str]) -> str:
    """Returns Milvus's condition that a row has one of these names.

    The client's own `ids` puts names between quotes as they are, and Milvus Lite knows no parameters of a condition.
    """
    return f"name in [{', '.join(map(_quoted, names))}]"


def _quoted(name: str) -> str:
    return f"'{name.translate(ESCAPES)}'"


def _stamp_text(stamp: np.ndarray, attributes: Mapping[str, Any]) -> str:
    """Returns a text that differs where a picture's contents do, before a "/", or its attributes, behind it."""
    values = json.dumps(attributes, sort_keys=True).encode() if attributes else b""
    mark = f"/{hashlib.blake2b(values, digest_size=8).hexdigest()}" if attributes else ""
    return f"{int(stamp[0])}-{int(stamp[1])}{mark}"
