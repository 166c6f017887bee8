"""The same index in Milvus: in an embedded file (Milvus Lite), or in a cluster, by its address.

Not tried with a cluster, only with the embedded file, through the same client.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np

from contextjax.json_files import parse_json
from contextjax.serving import parts
from contextjax.serving.index import Found, Index, check_fingerprint, check_new, check_rows, check_stamps, listed
from contextjax.serving.storage import unpack
from contextjax.types import UserError

ROWS = 1000  # of one request
LONGEST = 4096  # characters of a name


class MilvusIndex:
    """Names and embeddings in a collection of Milvus, with the calls of Index: add, remove, search, len.

    Scores are cosines in float32. Equal ones come in Milvus's order.
    """

    def __init__(self, address: str = "index.db", *, dimension: int = 0, fingerprint: str = "", gallery: str = "",
                 collection: str = "contextjax", index_type: str = "FLAT", token: str = "",
                 timeout: float = 10.0):  # fmt: skip
        """Opens a collection, or makes it.

        Args:
          address: FILE.db, or http://HOST:PORT of a server.
          dimension: of the embeddings of a new collection; 0: it must be there, and may be of any system and gallery.
          fingerprint: of the system that makes the embeddings of a new one.
          gallery: what a new one is of.
          collection: its name.
          index_type: of a new one: Milvus's name of a way to search. FLAT is exact; others are not.
          token: user:password.
          timeout: seconds after which a server that does not answer a question is away; it has longer for new rows.

        Raises:
          UserError: pymilvus is missing, the server can't be reached, there is no such collection, or it is of another
            system, dimension or gallery than is given.
        """
        if "://" not in address and not address.endswith(".db"):
            raise UserError(f"The address of Milvus is '{address}'; expected FILE.db, or http://HOST:PORT.")
        try:
            from pymilvus import MilvusClient
        except ImportError as error:
            raise UserError(f"Milvus needs pymilvus ({error}); pip install 'contextjax[milvus]'.") from error
        logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # what goes wrong is told by a UserError
        self.address, self._collection, self._timeout = address, collection, timeout
        with self._told():
            self._client: Any = MilvusClient(address, token=token, timeout=timeout)
            about = {"dimension": dimension, "fingerprint": fingerprint, "gallery": gallery}
            self.about = self._known() or self._create(about, index_type)
        if dimension:
            self.check_made_for(dimension, fingerprint, gallery)

    @property
    def dimension(self) -> int:
        """Of the embeddings."""
        return self.about["dimension"]

    def check(self, fingerprint: str) -> None:
        """Raises a UserError where another system than this one made the embeddings."""
        check_fingerprint(self.about["fingerprint"], fingerprint, place=self.address)

    def check_made_for(self, dimension: int, fingerprint: str, gallery: str) -> None:
        """Raises a UserError where the collection is not of this dimension, system and gallery."""
        self.check(fingerprint)
        if self.dimension != dimension:
            raise UserError(f"{self.address} holds {self.dimension} values a picture; expected {dimension}.")
        if (known := self.about["gallery"]) != gallery:
            raise UserError(
                f"The collection '{self._collection}' at {self.address} is of the gallery {known or '(unnamed)'}, not "
                f"{gallery or '(unnamed)'}; give this one another --milvus_collection."
            )

    def close(self) -> None:
        """Lets go of the file or the connection."""
        self._client.close()

    def __len__(self) -> int:
        with self._told():
            asked = {"output_fields": ["count(*)"], "timeout": self._timeout}
            return self._client.query(self._collection, filter="", **asked)[0]["count(*)"]

    def add(self, names: Sequence[str], embeddings: np.ndarray, *, stamps: np.ndarray | None = None) -> None:
        """As Index.add; a failure may leave the first of many rows."""
        check_rows(names, embeddings, self.dimension)
        if not np.isfinite(embeddings).all():
            raise UserError("An embedding holds values that are not finite; the model has diverged.")
        if long := [name for name in names if len(name.encode(errors="replace")) > LONGEST]:
            raise UserError(f"{long[0][:60]}... has more than {LONGEST} characters; Milvus holds shorter names.")
        check_new(names, self.present(names), place=self.address)
        rows = zip(names, map(_stamp, check_stamps(names, stamps)), embeddings.astype(np.float32), strict=True)
        data = [{"name": name, "stamp": stamp, "embedding": vector} for name, stamp, vector in rows]
        with self._told():
            for begin in range(0, len(data), ROWS):
                self._client.insert(self._collection, data[begin : begin + ROWS])

    def remove(self, names: Collection[str]) -> None:
        """As Index.remove."""
        known = set(self.present(list(names)))
        if unknown := sorted(set(names) - known):
            raise UserError(f"{self.address} has no {listed(unknown)}; only what is in it can be removed.")
        gone = sorted(known)
        with self._told():
            for begin in range(0, len(gone), ROWS):
                self._client.delete(self._collection, ids=gone[begin : begin + ROWS])

    def search(self, queries: np.ndarray, k: int) -> list[Found]:
        """As Index.search."""
        if queries.ndim != 2 or queries.shape[1] != self.dimension or not len(queries) or k < 1:
            raise UserError(f"k is {k}, the queries {list(queries.shape)}; expected 1 or more, [B, {self.dimension}].")
        if not np.isfinite(queries).all():
            raise UserError("A query holds values that are not finite; expected an embedding.")
        with self._told():
            found = self._client.search(
                self._collection, data=list(queries.astype(np.float32)), limit=k, output_fields=["name"],
                timeout=self._timeout,
            )  # fmt: skip
        if not any(found):
            raise UserError("The index is empty; add pictures to it before it is searched.")
        return [[(hit["entity"]["name"], float(hit["distance"])) for hit in hits] for hits in found]

    def stamps(self) -> dict[str, str]:
        """Name -> stamp of every row."""
        found = {}
        with self._told():
            rows = self._client.query_iterator(self._collection, batch_size=ROWS, output_fields=["name", "stamp"])
            while part := rows.next():
                found |= {row["name"]: row["stamp"] for row in part}
            rows.close()
        return found

    def present(self, names: Sequence[str]) -> list[str]:
        """Those of some names that are there, in Milvus's order."""
        asked = {"output_fields": ["name"], "timeout": self._timeout}
        with self._told():
            return [
                row["name"]
                for begin in range(0, len(names), ROWS)
                for row in self._client.get(self._collection, ids=names[begin : begin + ROWS], **asked)
            ]

    def _known(self) -> dict[str, Any] | None:
        """What the collection was made for, None where there is none.

        It stands in one of its own, for Milvus Lite keeps no descriptions.
        """
        there = [self._client.has_collection(name, timeout=self._timeout) for name in (self._collection, self._about)]
        if not there[0]:
            return None
        for name in (self._collection, self._about)[: sum(there)]:
            self._client.load_collection(name)
        asked = {"output_fields": ["value"], "timeout": self._timeout}
        rows = self._client.get(self._about, ids=["about"], **asked) if there[1] else []
        if not rows:
            raise UserError(
                f"Nothing at {self.address} tells what the collection '{self._collection}' is of: contextjax did not "
                "make it; give another --milvus_collection, or drop it."
            )
        return parse_json(rows[0]["value"])

    @property
    def _about(self) -> str:
        return f"{self._collection}_about"

    def _create(self, about: dict[str, Any], index_type: str) -> dict[str, Any]:
        if not about["dimension"]:
            raise UserError(
                f"{self.address} has no collection '{self._collection}'; make it with experiments.embed --milvus."
            )
        # It comes first: whatever is killed, no collection is without.
        if not self._client.has_collection(self._about, timeout=self._timeout):
            self._make(self._about, {"name": 64, "value": 65_535}, "unused", 2, "FLAT")  # a vector is a must
        row = {"name": "about", "value": json.dumps(about), "unused": [0.0, 1.0]}
        self._client.upsert(self._about, [row])
        self._make(self._collection, {"name": LONGEST, "stamp": 64}, "embedding", about["dimension"], index_type)
        return about

    def _make(self, name: str, texts: dict[str, int], vector: str, dimension: int, index_type: str) -> None:
        from pymilvus import DataType

        schema = self._client.create_schema(auto_id=False, enable_dynamic_field=False)
        for field, length in texts.items():
            schema.add_field(field, DataType.VARCHAR, max_length=length, is_primary=field == "name")
        schema.add_field(vector, DataType.FLOAT_VECTOR, dim=dimension)
        params = self._client.prepare_index_params()
        params.add_index(vector, index_type=index_type, metric_type="IP")
        self._client.create_collection(name, schema=schema, index_params=params, consistency_level="Strong")

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Milvus's errors as sentences."""
        from pymilvus import MilvusException

        try:
            yield
        except MilvusException as error:
            reason = str(error.message).strip().partition("\n")[0]
            raise UserError(f"Milvus at {self.address} says: {reason}; check the address and the server.") from error


def mirror(index: Index, target: MilvusIndex) -> tuple[int, int]:
    """Makes a collection what an index is, a part at a time; what is there already stays. Returns (added, removed).

    Raises:
      UserError: the collection is of another dimension, system or gallery.
    """
    m = index.manifest
    target.check_made_for(m.dimension, m.fingerprint, m.gallery)
    known, count = target.stamps(), 0
    now = {name: _stamp(stamp) for name, stamp in zip(index.names, index.row_stamps(), strict=True)}
    gone = [name for name, stamp in known.items() if now.get(name) != stamp]
    target.remove(gone)
    for part in parts.iterate(index.folder, index.manifest):
        new = np.asarray([known.get(name) != now[name] for name in part.names], bool)
        names = [name for name, is_new in zip(part.names, new, strict=True) if is_new]
        target.add(names, unpack(part.embeddings[new]), stamps=part.stamps[new])
        count += len(names)
    return count, len(gone)


def _stamp(stamp: Any) -> str:
    return f"{int(stamp[0])}-{int(stamp[1])}"
