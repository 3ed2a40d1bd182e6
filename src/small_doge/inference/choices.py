"""What commands show in their help: a module that loads no library, so that help comes at once."""

# The largest increase of perplexity that an export of each weight format may have.
MAX_PERPLEXITY_INCREASE = {"none": 0.001, "int8": 0.02, "int4": 0.15}
# What a cache of 8-bit numbers may add to it.
MAX_CACHE_INCREASE = 0.01
