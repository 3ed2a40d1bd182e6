"""Names and defaults that commands show in their help: a module that loads no library, so that help comes at once."""

# Folder with a mirror of the hub, owner/name/..., which is looked into before the hub.
DATA_ROOT = "SMALL_DOGE_DATA_ROOT"
DEFAULT_VOCAB_SIZE = 32768
# Bytes of text kept for training, whatever the corpus: the trainer holds several times as much.
DEFAULT_SAMPLE_BYTES = 100_000_000
# What cleans texts, in the order in which it is applied, the cheap ones first.
FILTERS = {
    "length": "fewer than min_words or more than max_words words",
    "gopher_repetition": "repeated lines, paragraphs and n-grams (Gopher, arXiv 2112.11446, table A1)",
    "gopher_quality": "word lengths, symbols, bullets, stop words of English (the same, section A1.1)",
    "fineweb": "lines without end marks, short and repeated lines, lists (FineWeb, arXiv 2406.17557)",
    "evaluation_overlap": "shares a run of words with a text of an evaluation set",
    "exact_duplicates": "the same text stands earlier",
    "near_duplicates": "nearly the same text stands elsewhere (MinHash of 5-word runs, about 75% alike)",
}
