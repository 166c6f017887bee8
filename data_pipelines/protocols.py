"""The evaluation protocol of each benchmark: its gallery, its correct answers and its cut-offs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from contextjax.types import EvaluationProtocol, UserError

# All pictures of the split, references included, without the query's own; the subset is the rest of its group.
CIRR = EvaluationProtocol(
    name="cirr",
    reader="cirr",
    recall_at=(1, 5, 10, 50),
    subset_recall_at=(1, 2, 3),
    excludes_reference=True,
    average=("R@5", "Rs@1"),
)

# The mean of three categories, each with a gallery of its own: all pictures of its split file ("original"), or the
# references and targets alone ("val"). Figures of the two protocols cannot be compared.
FASHION_IQ_ORIGINAL = EvaluationProtocol(
    name="fashion_iq_original",
    reader="fashion_iq",
    recall_at=(10, 50),
    excludes_reference=False,
    average=("R@10", "R@50"),
    parts=("dress", "shirt", "toptee"),
)
FASHION_IQ_VAL = dataclasses.replace(FASHION_IQ_ORIGINAL, name="fashion_iq_val", gallery="named")

# All of COCO's unlabeled pictures; several are correct. mAP@10 is reported for each semantic aspect, too.
CIRCO = EvaluationProtocol(
    name="circo",
    reader="circo",
    map_at=(5, 10, 25, 50),
    recall_at=(5, 10, 25, 50),
    excludes_reference=False,
    template="Find a picture that also {shared_concept}, but {relative_caption}.",
)

# A query has a gallery of its own: the target and similar pictures. Each of the four tasks is a split.
GENECIS = EvaluationProtocol(
    name="genecis", reader="genecis", recall_at=(1, 2, 3), gallery="own", excludes_reference=False
)

# The database of the query's own instance, in which several pictures are right. Both means are in the authors' code.
ICIR = EvaluationProtocol(
    name="icir", reader="icir", recall_at=(1, 5, 10), gallery="instance", excludes_reference=False, any_truth=True
)

# The whole corpus of the split, the reference included.
LASCO = EvaluationProtocol(name="lasco", reader="lasco", recall_at=(1, 5, 10, 50, 100, 500), excludes_reference=False)

# All pictures that the split names.
HOTEL_CIR = EvaluationProtocol(name="hotel_cir", reader="hotel_cir", recall_at=(1, 5, 10, 50), excludes_reference=False)

# A user's own sets: all pictures that the split names, without the query's own.
MANIFEST = EvaluationProtocol(name="manifest", reader="manifest", recall_at=(1, 5, 10, 50))

# A catalogue of products: all pictures of the split, without the query's own; every product with the asked attributes
# is right. The subset is of six products that differ in colour alone.
CATALOGUE = EvaluationProtocol(
    name="catalogue",
    reader="catalogue",
    map_at=(5, 10, 50),
    recall_at=(1, 10, 50),
    subset_recall_at=(1, 2, 3),
    excludes_reference=True,
    any_truth=True,
)

# All pictures of the split, without the query's own; every picture with the target's description is right.
FASHION200K = EvaluationProtocol(
    name="fashion200k", reader="fashion200k", recall_at=(1, 10, 50), excludes_reference=True, any_truth=True
)

# Captions: a picture is looked for by its caption among all pictures of the split. It shows what towers know before
# they are trained on triplets.
CIRR_CAPTIONS = EvaluationProtocol(
    name="cirr_captions", reader="cirr_captions", recall_at=(1, 5, 10), excludes_reference=False, query="text"
)

# Captions and their pictures, both ways, among all pictures and all captions of the split; "Avg" is the mean of all
# six. Of the few pictures with more captions the first five count, as is usual on COCO and Flickr30k.
KARPATHY = EvaluationProtocol(
    name="karpathy",
    reader="karpathy",
    recall_at=(1, 5, 10),
    excludes_reference=False,
    average=("IR@1", "IR@5", "IR@10", "TR@1", "TR@5", "TR@10"),
    query="text",
    both_ways=True,
    captions_per_picture=5,
)
CAPTIONS = dataclasses.replace(KARPATHY, name="captions", reader="captions", captions_per_picture=0)

# Candidate sets: accuracy among each description's own candidates.
IMAGECODE = EvaluationProtocol(name="imagecode", reader="imagecode", gallery="own", excludes_reference=False)
CATALOGUE_SETS = EvaluationProtocol(
    name="catalogue_sets", reader="catalogue_sets", gallery="own", excludes_reference=False
)
MMVP = EvaluationProtocol(name="mmvp", reader="mmvp", gallery="own", excludes_reference=False, pairs=True)

# ImageCoDe's leaderboard: a set of any other size has lost pictures, and the ranks of the rest are not its indices.
IMAGECODE_CANDIDATES = 10

PROTOCOLS: Mapping[str, EvaluationProtocol] = {
    protocol.name: protocol
    for protocol in (
        CIRR,
        # Other texts of CIRR's pairs, scored as CIRR's own are, under names of their own.
        *(dataclasses.replace(CIRR, name=name, reader=name) for name in ("cirr_r", "cirr_ext")),
        *(FASHION_IQ_ORIGINAL, FASHION_IQ_VAL, CIRCO, ICIR, GENECIS, LASCO, HOTEL_CIR, MANIFEST, CATALOGUE, IMAGECODE),
        *(FASHION200K, CATALOGUE_SETS, MMVP, CIRR_CAPTIONS, KARPATHY, CAPTIONS),
    )
}


def named(name: str) -> EvaluationProtocol:
    """Returns the protocol of that name.

    Raises:
      UserError: there is none.
    """
    if name not in PROTOCOLS:
        raise UserError(f"The protocol is '{name}'; known are {', '.join(PROTOCOLS)}.")
    return PROTOCOLS[name]


def of_reader(reader: str) -> EvaluationProtocol:
    """Returns the protocol of a reader where none is named: the first one in PROTOCOLS.

    Raises:
      UserError: the reader has no protocol.
    """
    for protocol in PROTOCOLS.values():
        if protocol.reader == reader:
            return protocol
    known = ", ".join(dict.fromkeys(protocol.reader for protocol in PROTOCOLS.values()))
    raise UserError(
        f"Nothing is evaluated on what the reader '{reader}' reads; give --data and --protocol of one of {known}."
    )
