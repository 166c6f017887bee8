"""Pictures to training triplets, by models: pairs, descriptions, difference texts, filters (docs/guides/synthesis.md).

python -m experiments.synthesize --pictures=FOLDER --workdir=CLIP --target=DIR --backend=openai --model=NAME --dry_run
python -m experiments.synthesize --data=CIRR --target=DIR --backend=openai|transformers --model=NAME
python -m experiments.synthesize --data=data/pictograms/cirr --target=data/pictograms/synthetic --backend=rules

The same command goes on where it stopped. What stands after a bare "--" are Apache Beam's options (--runner=beam).
"""

from absl import flags

from experiments.shared import cli

TAKES_ARGUMENTS = True  # those of Apache Beam
flags.DEFINE_string("data", None, "A set whose own (reference, target) pairs are taken.")
flags.DEFINE_string("reader", "cirr", "Its layout, as in a config's data.reader.")
flags.DEFINE_string("split", "train", "Its split; also that of what is written.")
flags.DEFINE_string("pictures", None, "Or a folder of pictures, whose pairs are mined.")
flags.DEFINE_string("target", None, "Where the set is written: a new folder, or one of an earlier run.")
flags.DEFINE_integer("pairs", 0, "At most so many pairs, drawn by --seed; 0: all.", lower_bound=0)
flags.DEFINE_integer("seed", 0, "Of what is drawn.")
# Mining.
flags.DEFINE_string("workdir", None, "A CLIP (workdir, export, folder or hub id): for mining and --agreement.")
flags.DEFINE_list("band", ["0.75", "0.95"], "The least and the greatest cosine of a pair; band.html shows examples.")
flags.DEFINE_integer("group", 6, "Pictures of a group, any two of which are in the band.", lower_bound=2)
flags.DEFINE_integer("targets", 1, "Targets of each reference of a group.", lower_bound=1)
# Models.
flags.DEFINE_enum("backend", None, ["openai", "transformers", "rules"], "Who answers; rules: of pictograms, no model.")
flags.DEFINE_string("model", None, "The model that sees pictures: a name of the endpoint's, or a folder or hub id.")
flags.DEFINE_string("writer", None, "Another model for the texts.")
flags.DEFINE_string("address", None, "The endpoint, as http://HOST:8000/v1; default: OpenAI's.")
flags.DEFINE_string(
    "key_variable", None, "The environment variable that holds the key; default: OPENAI_API_KEY, with --address none."
)
flags.DEFINE_string("request", None, "Further fields of a request as JSON, instead of temperature and answer_tokens.")
flags.DEFINE_integer("side", 768, "The longer side in pixels of pictures as models see them.", lower_bound=16)
flags.DEFINE_integer("concurrency", 8, "Pairs under way at a time.", lower_bound=1)
flags.DEFINE_float("requests_per_minute", 0.0, "At most; 0: no limit.", lower_bound=0)
flags.DEFINE_float("tokens_per_minute", 0.0, "At most, about; 0: no limit.", lower_bound=0)
flags.DEFINE_float("timeout", 120.0, "Seconds that one try of a question may take.", lower_bound=0.1)
flags.DEFINE_integer("tries", 8, "Of a question where the endpoint fails.", lower_bound=1)
flags.DEFINE_string("batch", None, "Ask by batch files in this folder, instead of at once.")
# Cost.
flags.DEFINE_bool("dry_run", False, "Ask nothing: tell how many questions, tokens and what cost there would be.")
flags.DEFINE_float("price_in", 0.0, "For a million tokens of questions.", lower_bound=0)
flags.DEFINE_float("price_out", 0.0, "For a million tokens of answers.", lower_bound=0)
flags.DEFINE_integer("picture_tokens", 1000, "Tokens of a picture, assumed by --dry_run until some were counted.")
flags.DEFINE_integer("answer_tokens", 800, "The longest answer; --dry_run assumes half until some were counted.")
# Texts.
flags.DEFINE_string("answers", None, "The file of answers; default: TARGET/synthesis/answers.sqlite.")
flags.DEFINE_string("prompts", None, "A folder of prompts of your own, as data_pipelines/synthesis/prompts.")
flags.DEFINE_integer("texts", 6, "Texts asked for of each pair.", lower_bound=1)
flags.DEFINE_integer("characters", 100, "Longer texts are removed.", lower_bound=10)
flags.DEFINE_string("grammar", "", "A LanguageTool server, as http://HOST:8081; without it grammar is not checked.")
flags.DEFINE_string("language", "en-US", "The texts' language, for --grammar.")
flags.DEFINE_float(
    "agreement", None, "The least agreement of a text with target minus reference, as --workdir sees it."
)
flags.DEFINE_list("decisions", [], "Files that review pages saved, a later one wins: what was rejected is left out.")
flags.DEFINE_integer("review", 100, "Triplets on the review page.", lower_bound=0)
flags.DEFINE_enum("runner", "local", ["local", "beam"], "Threads of this process, or Apache Beam.")


def main(beam_options: list[str]) -> None:
    """Pairs -> plan -> drafts -> files and pages."""
    from experiments.synthesis.run import synthesize

    for name in ("target", "backend"):
        cli.required(flags.FLAGS[name])
    synthesize(flags.FLAGS, beam_options)


if __name__ == "__main__":
    cli.run(main)
