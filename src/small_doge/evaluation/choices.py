"""Names that commands show in their help: a module that loads no library, so that help comes at once."""

ATTENTIONS = {
    "dynamic": "dynamic mask attention, as trained: the keys with the best scores",
    "full": "full attention: all keys",
    "sliding": "a sliding window: as many keys, the most recent ones",
}
ROW_FORMATS = ("auto", "text", "conversation")
