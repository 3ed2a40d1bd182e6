"""What exists only so that the commands of the published SmallDoge guides keep working.

The guides: https://github.com/SmallDoges/small-doge. Thin files at their paths (`small_doge/pt.py`, `examples/utils`,
`model/modules`) call what is here or hand on what it is called today; `names` says what the guides call otherwise.
"""
