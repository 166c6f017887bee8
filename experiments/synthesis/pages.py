"""The pages of a synthesis: a similarity band in examples, what each filter removed, a sample to decide on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from contextjax import images
from contextjax.files import write_whole
from contextjax.metrics import share_interval
from contextjax.reports import Sample, SampleReport, Section, make_sample, render
from contextjax.types import Picture, UserError
from data_pipelines.synthesis.drafts import Draft, triplet_id
from data_pipelines.synthesis.pairs import SimilarityBand, SourcePictures, sample_pairs
from data_pipelines.synthesis.review import removed_by, sample
from data_pipelines.synthesis.write import WriteCounts

EXAMPLES = 12  # of each section
_BLANK = np.full((64, 64, 3), 205, np.uint8)


def write_page(path: Path, page: SampleReport) -> None:
    """Writes a page. Raises UserError: the disk is full, or may not be written to."""
    try:
        write_whole(path, render(page))
    except OSError as error:
        raise UserError(f"{path} can't be written ({error}); make room for it and try again.") from error


def band_page(
    ids: Sequence[str],
    embeddings: np.ndarray,
    pictures: SourcePictures,
    band: SimilarityBand,
    groups: int,
    *,
    seed: int,
    facts: Mapping[str, str],
) -> SampleReport:
    """Shows pairs below, inside and above a band of cosines."""
    edges = [band.low, *(band.low + (band.high - band.low) * part / 3 for part in (1, 2)), band.high]
    titles = ["Below the band: strangers", "In the band, lower third", "In the band, middle third",
              "In the band, upper third", "Above the band: near-duplicates"]  # fmt: skip
    sections = []
    bins = sample_pairs(embeddings, per_bin=EXAMPLES, edges=edges, seed=seed)
    bounds = [-1.0, *edges, 1.0]
    for title, low, high, (share, pairs) in zip(titles, bounds[:-1], bounds[1:], bins, strict=True):
        cards = [_pair(pictures, ids[a], ids[b], notes=[f"cosine {cosine:.3f}"]) for (a, b, cosine) in pairs]
        intro = f"Cosines from {low:.3f} to {high:.3f}: {100 * share:.2f} % of the pairs of a sample of pictures."
        sections.append(Section(title, intro, tuple(cards)))
    return SampleReport(
        title=f"{band.low:g} to {band.high:g}",
        kind="similarity band",
        lead="Are the pictures of the band alike, and yet worth telling apart in words? If not, choose another --band.",
        counts={"pictures": f"{len(ids):,}", "groups found": f"{groups:,}"},
        sections=tuple(sections),
        facts=facts,
    )


def filters_page(
    drafts: Iterable[Draft],
    pictures: SourcePictures,
    counts: WriteCounts,
    *,
    title: str,
    seed: int,
    facts: Mapping[str, str],
) -> SampleReport:
    """Shows how much each filter removed, with examples."""
    sections = []
    for name, removed in removed_by(drafts, EXAMPLES, seed=seed).items():
        what = "texts" if removed.items[0][1] else "pairs"
        cards = [
            _pair(pictures, draft.reference, draft.target, text=text, notes=[why] if why else [])
            for draft, text, why in removed.items
        ]
        sections.append(Section(f"{name}: {removed.seen:,} {what}", "A sample of them.", tuple(cards)))
    return SampleReport(
        title=title,
        kind="what filters removed",
        lead="Each text is under the filter that removed it, and each pair without a text under the step that failed.",
        counts={
            "pairs": f"{counts.pairs:,}",
            "triplets left": f"{counts.triplets:,}",
            "texts removed": f"{sum(counts.removed.values()):,}",
        },
        sections=tuple(sorted(sections, key=lambda section: section.title)),
        facts=facts,
    )


def review_page(
    drafts: Iterable[Draft],
    pictures: SourcePictures,
    count: int,
    *,
    title: str,
    split: str,
    seed: int,
    facts: Mapping[str, str],
) -> SampleReport:
    """Shows a sample of triplets to accept or reject."""
    every = ((draft, sentence) for draft in drafts for sentence in draft.kept)
    cards = [
        _pair(pictures, draft.reference, draft.target, id=triplet_id(draft, sentence.text), text=sentence.text,
              notes=[draft.replies[-1].model])
        for draft, sentence in sample(every, count, seed=seed)
    ]  # fmt: skip
    intro = "Accept a text that, with the reference, asks for the target and is true. Reject any other."
    return SampleReport(
        title=title,
        kind="review of triplets",
        lead=f"A sample of {len(cards)} triplets, each drawn with equal chance. The next run takes saved decisions, "
        "those of earlier pages too, as --decisions=FILE,FILE.",
        counts={},
        sections=(Section("Triplets", intro, tuple(cards)),),
        facts=facts,
        decisions=f"decisions.{split}.json",
    )


def acceptance(decisions: Mapping[str, str]) -> str:
    """Formats the acceptance rate of a file of decisions, with its interval."""
    accepted, total = sum(decision == "accept" for decision in decisions.values()), len(decisions)
    if not total:
        return "No triplet was decided on."
    low, high = share_interval(accepted, total)
    rate = f"{100 * accepted / total:.1f} % (95 % interval {low:.1f} to {high:.1f}, Wilson)"
    return f"Accepted: {accepted} of {total}, {rate}."


def _pair(
    pictures: SourcePictures, reference: str, target: str, *, id: str = "", text: str = "", notes: Sequence[str] = ()
) -> Sample:
    named = (("reference", reference), ("target", target))
    shown = [(_picture(pictures, name), f"{role}: {name}") for role, name in named]
    return make_sample(id, shown, text=text, notes=notes)


def _picture(pictures: SourcePictures, name: str) -> Picture:
    """Reads a picture and makes it small; a picture that can't be read is a grey one."""
    try:
        image = images.decode(pictures.show(name).data)
    except UserError:
        return _BLANK
    image.thumbnail((256, 256))
    return np.asarray(image)
